# docker build -t ghcr.io/agenttracing/agent-tracing-operator:v0.1.0 .     (after `cargo build` of a static binary; see Makefile)
FROM scratch
ARG BINARY=target/x86_64-unknown-linux-musl/release/agent-tracing-operator
COPY --chmod=0555 ${BINARY} /agent-tracing-operator
# A number: the kubelet cannot tell from a name that it is not root, and refuses the pod under runAsNonRoot.
USER 65532:65532
ENTRYPOINT ["/agent-tracing-operator"]
LABEL org.opencontainers.image.title="agent-tracing-operator" \
      org.opencontainers.image.description="Brings the traces of AI agents on Kubernetes into MLflow, and proves that they arrive." \
      org.opencontainers.image.source="https://github.com/agenttracing/agent-tracing-operator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="v0.1.0"
