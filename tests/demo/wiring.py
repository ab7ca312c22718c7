"""Prints which Deployments of `kubectl get deployments -o json` are wired, and with what."""

import json
import sys

PREFIX = "agenttracing.dev/"


def reason(deployment):
    labels = deployment["metadata"].get("labels", {})
    template = deployment["spec"]["template"]["metadata"].get("labels", {})
    out = "false" in (labels.get(PREFIX + "inject"), template.get(PREFIX + "inject"))
    return "opted out (label agenttracing.dev/inject=false): untouched" if out else "not wired"


def main():
    for deployment in json.load(sys.stdin)["items"]:
        name = deployment["metadata"]["name"]
        template = deployment["spec"]["template"]
        record = template["metadata"].get("annotations", {}).get(PREFIX + "injected")
        if record is None:
            print(f"  {name:12} {reason(deployment)}")
            continue
        wired = json.loads(record)["containers"]
        print(f"  {name:12} wired")
        for container in template["spec"]["containers"]:
            ours = wired.get(container["name"], {}).get("env", {})
            for entry in container.get("env", []):
                mark = "+" if entry["name"] in ours else " "
                if ours and entry["name"].startswith("MLFLOW_"):
                    print(f"    {mark} {entry['name']}={entry.get('value', '(from elsewhere)')}"
                          + ("" if mark == "+" else "   (the user's own, kept)"))


main()
