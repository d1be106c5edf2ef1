"""Writes the dashboards, the alert rules and the runbook, each from one source.

    python3 scripts/dashboards            writes them
    python3 scripts/dashboards --check    says which are not what it would write, and ends with 1
"""
import json
import os
import sys

import alerts
import inside
import traffic

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MADE = "# Made by `python3 scripts/dashboards`; change scripts/dashboards/alerts.py.\n"


def rules(indent):
    """The group of rules, as YAML."""
    lines = ["groups:", "  - name: weft", "    rules:"]
    for alert in alerts.ALERTS:
        lines += [f"      - alert: {alert.name}", "        expr: |-"]
        lines += [f"          {line}" for line in alert.expr.splitlines()]
        lines += [f"        for: {alert.wait}", f"        labels: {{severity: {alert.severity}}}", "        annotations:"]
        for name, text in (("summary", alert.summary), ("description", alert.description), ("runbook", f"{alerts.PAGE}#{alert.name.lower()}")):
            lines.append(f"          {name}: {json.dumps(text, ensure_ascii=False)}")
    return "\n".join(" " * indent + line for line in lines) + "\n"


def runbook():
    """docs/runbook.md"""
    text = "# Runbook\nWritten by `python3 scripts/dashboards` from scripts/dashboards/alerts.py; the rules are in [manifests/prometheus](../manifests/prometheus).\n\n"
    text += "For each alert: what it means, how to look, what to do. NAMESPACE, WORKLOAD and POD are the alert's labels. An expression without a command is for Prometheus.\n\n"
    text += "| alert | severity | after | says |\n|---|---|---|---|\n"
    for alert in alerts.ALERTS:
        text += f"| [{alert.name}](#{alert.name.lower()}) | {alert.severity} | {alert.wait} | {alert.summary.replace('|', chr(92) + '|')} |\n"
    for alert in alerts.ALERTS:
        text += f"\n## {alert.name}\n{alert.description}\n\n**It means:** {alert.means}\n\n**Rule:** for {alert.wait},\n\n"
        text += "".join(f"    {line}\n" for line in alert.expr.splitlines())
        text += "\n**Look:**\n\n" + "".join(f"    {line}\n" for line in alert.look) + "\n**Do:**\n" + "".join(f"- {line}\n" for line in alert.do)
    return text


def files():
    """Path → text."""
    made = {
        "manifests/prometheus/rules.yaml": MADE + rules(0),
        "manifests/prometheus/prometheusrule.yaml": MADE + "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: weft\n  namespace: weft-system\n"
        "  labels: {app.kubernetes.io/part-of: weft}\nspec:\n" + rules(2),
        "docs/runbook.md": runbook(),
    }
    for page in [*traffic.PAGES, *inside.PAGES]:
        page = page()
        made[f"manifests/grafana/{page['uid']}.json"] = json.dumps(page, indent=1, ensure_ascii=False) + "\n"
    return made


def main():
    stale = []
    for path, text in files().items():
        path = os.path.join(ROOT, path)
        stands = open(path, encoding="utf-8").read() if os.path.exists(path) else None
        if stands != text:
            stale.append(os.path.relpath(path, ROOT))
            if "--check" not in sys.argv:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
    if stale and "--check" in sys.argv:
        sys.exit(f"not what scripts/dashboards makes: {', '.join(stale)}; run `python3 scripts/dashboards`")


main()
