{{/*
Labels of every object. Never of the pod template: the chart's version in it would roll the pods for nothing.
*/}}
{{- define "operator.labels" -}}
app.kubernetes.io/name: agent-tracing-operator
app.kubernetes.io/part-of: agent-tracing
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The operator's image, by digest where one is given. */}}
{{- define "operator.image" -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{/*
A hook of `helm uninstall`, before anything is deleted. What succeeded goes; what failed stays to be looked at.
*/}}
{{- define "operator.uninstall" -}}
helm.sh/hook: pre-delete
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
