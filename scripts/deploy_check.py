"""Of scripts/deploy-check: the chart as Helm renders it, by Kubernetes' schemas and by what must fit together in it; and the
flags that chart and compose file give to quorumgate, by its own help. Usage: CHART COMPOSE.JSON [BINARY]"""

import json
import subprocess
import sys
from pathlib import Path

import helm_python
import kubernetes_validate
import yaml

# Kinds of others: their definitions are not Kubernetes' own.
FOREIGN = {"GatewayClass", "PodMonitor"}
CASES = {
    "as it is": {},
    "replicas and a class of storage": {"replicas": 3, "storage": {"className": "fast"}, "podMonitor": True},
    "the Gateway API": {"gatewayApi": {"enabled": True, "ports": [{"port": 443, "nodePort": 8443}]}},
    "placed": {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gateway", "operator": "Exists", "effect": "NoSchedule"}],
        "podAnnotations": {"a": "b"},
    },
}
bad = 0


def said(what, problems):
    global bad
    if problems:
        bad += 1
        print(f"× {what}", *problems, sep="\n  ", file=sys.stderr)
    else:
        print(f"√ {what}")


def known_flags(binary, verb):
    """What a verb's help shows; a word it does not know is refused by clap all the same, so this reads the help alone."""
    shown = subprocess.run([binary, *verb, "--help"], capture_output=True, text=True, check=True).stdout
    return {word.strip(",") for line in shown.splitlines() for word in line.split() if word.startswith("-")}


def flags_of(words):
    return [word.split("=", 1)[0] for word in words if word.startswith("--")]


def unknown_flags(binary, words):
    verb = [next(word for word in words if not word.startswith("-"))]
    known = known_flags(binary, verb)
    return [f"{verb[0]} has no {flag}" for flag in flags_of(words) if flag not in known]


def pods(documents):
    return [it for it in documents if it["kind"] == "StatefulSet"]


def fits(documents):
    """What the API server does not check: that selectors find the pods, and ports and claims have their names."""
    problems = []
    labels = [(it["metadata"]["name"], it["spec"]["template"]["metadata"]["labels"]) for it in pods(documents)]
    for it in documents:
        selector = it["spec"].get("selector", {}) if it["kind"] in ("Service", "PodDisruptionBudget", "PodMonitor") else None
        if selector is None:
            continue
        wanted = selector.get("matchLabels", selector)
        if not any(wanted.items() <= of_pod.items() for _, of_pod in labels):
            problems.append(f"{it['kind']}/{it['metadata']['name']} selects no pod: {wanted}")
    for it in pods(documents):
        name, spec = it["metadata"]["name"], it["spec"]["template"]["spec"]
        if not it["spec"]["selector"]["matchLabels"].items() <= it["spec"]["template"]["metadata"]["labels"].items():
            problems.append(f"{name} does not select its own pods")
        volumes = {one["name"] for one in spec.get("volumes", [])}
        volumes |= {one["metadata"]["name"] for one in it["spec"]["volumeClaimTemplates"]}
        for container in spec["containers"]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    problems.append(f"{name}: {container['name']} mounts {mount['name']}, which there is not")
        services = {one["metadata"]["name"] for one in documents if one["kind"] == "Service"}
        if it["spec"]["serviceName"] not in services:
            problems.append(f"{name}: there is no service {it['spec']['serviceName']}")
        ports = {port["name"] for port in spec["containers"][0]["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            port = spec["containers"][0][probe]["httpGet"]["port"]
            if port not in ports:
                problems.append(f"{name}: {probe} asks {port}, which is no port")
    for it in (it for it in documents if it["kind"] == "Service"):
        named = {port["targetPort"] for port in it["spec"]["ports"] if isinstance(port["targetPort"], str)}
        ports = {port["name"] for one in pods(documents) for port in one["spec"]["template"]["spec"]["containers"][0]["ports"]}
        problems += [f"Service/{it['metadata']['name']}: no port {port}" for port in named - ports]
    return problems


def main(chart_path, compose_path, binary):
    linted = helm_python.lint(chart_path, strict=True)
    told = [f"{it['path']}: {it['error']}" for it in linted["messages"] if it["severity"] > 1]
    said("the chart, by helm lint", told + linted["errors"])
    chart = helm_python.Chart.load(chart_path)
    for case, values in CASES.items():
        rendered = chart.render(values, name="gw", namespace="edge")
        texts = [text for path, text in sorted(rendered.items()) if not path.endswith(".tpl")]
        documents = [it for text in texts for it in yaml.safe_load_all(text) if it]
        problems = []
        for it in documents:
            if it["kind"] not in FOREIGN:
                try:
                    kubernetes_validate.validate(it, "1.37", strict=True)
                except Exception as error:
                    problems.append(f"{it['kind']}/{it['metadata']['name']}: {error}")
        said(f"the chart, {case}: {len(documents)} objects by Kubernetes' schemas", problems)
        said(f"the chart, {case}: its parts fit together", fits(documents))
        if binary:
            words = [it["spec"]["template"]["spec"]["containers"][0]["args"] for it in pods(documents)]
            said(f"the chart, {case}: flags", [it for args in words for it in unknown_flags(binary, args)])
    if binary:
        services = json.loads(Path(compose_path).read_text())["services"]
        said("the compose file: flags", [it for one in services.values() for it in unknown_flags(binary, one["command"])])
    return bad


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""), 1))
