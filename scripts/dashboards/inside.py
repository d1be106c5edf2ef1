"""The pages about weft itself: what it detected, how it reached endpoints and where it fell back; and its own health."""
from grid import (ANY_IS_GOOD, DAYS_LEFT, HOURS_LEFT, NONE_IS_GOOD, RATE, SUCCESS, dashboard, graph, quantile, quantiles, rate, stat, table, top, variable)
from traffic import FAILED, IN, NAMESPACES, NS, OUT, PROXY, TO_WORKLOAD, WHO, WORKLOAD, share

CONTROL = 'job="weft-system"'


def protocols():
    """Detection, hops, faults, limits."""
    both = [NAMESPACES, variable("workload", "Workload", f'label_values({PROXY}{{namespace=~"$namespace"}}, workload)')]
    plain = f'{WORKLOAD},{IN},security="plaintext"'
    opened = rate("weft_hop_connections_total", WORKLOAD)
    return dashboard("weft-protocols", "weft / Protocols, hops and fallbacks", "What clients speak, how weft found out, how it reached the endpoints, and where something did not go the usual way.", both, [
        ("", [(4, [
            (4, stat("Detections", "Connections whose protocol was looked for.", rate("weft_detections_total", WORKLOAD), "cps")),
            (4, stat("Detection p99", "Time until the protocol was certain. A client that waits for the server's first word costs some milliseconds.", quantile(0.99, WORKLOAD, metric="weft_detection_duration_seconds"), "s")),
            (4, stat("Failed hops", "Share of the connections to endpoints that could not be opened.", share(rate("weft_hop_connections_total", f'{WORKLOAD},outcome!="ok"'), opened), "percentunit", NONE_IS_GOOD, 1)),
            (4, stat("Faults", "Connections that failed before there was a request, and requests that ended with a reason of weft's own.",
                     f'({rate("weft_connection_faults_total", WORKLOAD)} or vector(0)) + ({rate("weft_requests_total", f"{WORKLOAD},{FAILED}")} or vector(0))', "ops")),
            (4, stat("Limits reached", "How often a limit was reached in the last hour: `weft limits` lists them.", f"sum(increase(weft_limit_reached_total{{{WORKLOAD}}}[1h]))", "short", NONE_IS_GOOD, 0)),
            (4, stat("Plaintext connections", "Share of the connections at meshed servers that came in plaintext, probes of the kubelet among them.",
                     share(rate("weft_connections_total", plain), rate("weft_connections_total", f"{WORKLOAD},{IN}")), "percentunit", decimals=1)),
        ])]),
        ("Detection", [(8, [
            (8, graph("Detected protocols", "Connections by what their first bytes were.", [(rate("weft_detections_total", WORKLOAD, "outcome"), "{{outcome}}")], "cps", stacked=True)),
            (8, graph("Time of detection", "Time until the protocol was certain.", quantiles(WORKLOAD, "weft_detection_duration_seconds"), "s")),
            (8, graph("Time of detection by protocol, p99", "A protocol in which the server speaks first takes longest.", [(quantile(0.99, WORKLOAD, "outcome", "weft_detection_duration_seconds"), "{{outcome}}")], "s")),
        ])]),
        ("Hops", [(8, [
            (8, graph("Connections to endpoints by hop", "Opened: mesh is HTTP/2 over mutual TLS, plain and h2c are endpoints without weft.", [(rate("weft_hop_connections_total", f'{WORKLOAD},outcome="ok"', "hop"), "{{hop}}")], "cps", stacked=True)),
            (8, graph("Failed hops by outcome", "Connections to endpoints that could not be opened.", [(rate("weft_hop_connections_total", f'{WORKLOAD},outcome!="ok"', "hop,outcome"), "{{hop}}: {{outcome}}")], "cps", stacked=True)),
            (8, graph("Requests by protocol and hop", "What the client spoke, and how weft spoke to the endpoint.", [(rate("weft_requests_total", f"{WORKLOAD},{OUT}", "protocol,hop"), "{{protocol}} over {{hop}}")], "reqps", stacked=True)),
        ]), (8, [
            (8, graph("Tunnels by protocol", "Upgraded and opaque connections that ended.", [(rate("weft_tunnels_total", f"{WORKLOAD},{OUT}", "protocol,hop"), "{{protocol}} over {{hop}}")], "ops", stacked=True)),
            (8, graph("Time that tunnels were open", "Of upgraded and opaque connections that ended.", quantiles(WORKLOAD, "weft_tunnel_duration_seconds"), "s")),
            (8, graph("Bytes through tunnels", "Counted when a tunnel ends.", [(rate("weft_tunnel_received_bytes_total", f"{WORKLOAD},{OUT}"), "sent"), (rate("weft_tunnel_sent_bytes_total", f"{WORKLOAD},{OUT}"), "received")], "Bps")),
        ])]),
        ("Faults and fallbacks", [(8, [
            (8, graph("Connection faults by stage and reason", "Connections that failed before there was a request: the stage is the name of a source file, too.", [(rate("weft_connection_faults_total", WORKLOAD, "stage,reason"), "{{stage}}: {{reason}}")], "cps", stacked=True)),
            (8, graph("Failed requests by reason", "Requests that ended with a reason of weft's own.", [(rate("weft_requests_total", f"{WORKLOAD},{FAILED}", "direction,reason"), "{{direction}}: {{reason}}")], "reqps", stacked=True)),
            (8, graph("Retries by reason", "Attempts that were given up for another one.", [(rate("weft_retries_total", WORKLOAD, "reason"), "{{reason}}")], "reqps", stacked=True)),
        ]), (8, [
            (8, graph("Limits reached", "By the limit's name in `weft limits`.", [(f"sum by (limit) (increase(weft_limit_reached_total{{{WORKLOAD}}}[{RATE}]))", "{{limit}}")], "short", stacked=True)),
            (16, table("Faults by workload", "Connections that failed before there was a request: who is to blame, where, and why.", {**WHO, "direction": "Direction", "stage": "Stage", "blame": "Blame", "reason": "Reason"}, [
                ("In the last hour", top(20, f"sum by (namespace,workload,direction,stage,blame,reason) (increase(weft_connection_faults_total{{{WORKLOAD}}}[1h]))") + " > 0", "short"),
            ], links={"Workload": TO_WORKLOAD})),
        ])]),
    ])


def health():
    """Is weft itself well?"""
    left = "weft_certificate_expiry_timestamp_seconds"
    return dashboard("weft-health", "weft / Health", "weft's own programs: the controller, the issuer of identities, the injector, and all proxies.", [], [
        ("", [(4, [
            (3, stat("Programs of weft", "Processes of the controller, the issuer and the injector that tell their metrics.", f"count(weft_build_info{{{CONTROL}}})", thresholds=ANY_IS_GOOD)),
            (3, stat("Leaders", "Controllers that hold the Lease and may write. There is one, or nothing is written.", "sum(max by (pod) (weft_leader))", thresholds=ANY_IS_GOOD)),
            (3, stat("Proxies connected", "Share of the proxies whose stream to the controller is up. A proxy without one goes on with what it knows.", f"avg({PROXY})", "percentunit", SUCCESS, 1)),
            (3, stat("Un-meshed pods", "Pods in labelled namespaces that have no proxy although they should: they were there before the label. A restart meshes them.", "sum(max by (namespace) (weft_unmeshed_pods))", thresholds=NONE_IS_GOOD)),
            (3, stat("Workload certificates", "Time until the first certificate of a proxy ends.", f'min({left}{{job="weft-proxy"}}) - time()', "s", HOURS_LEFT, graph=False)),
            (3, stat("CA", "Time until the certificate of the mesh's CA ends.", "min(weft_ca_expiry_timestamp_seconds) - time()", "s", DAYS_LEFT, graph=False)),
            (3, stat("Webhook's certificate", "Time until the injector's serving certificate ends: after it no pod can be made in labelled namespaces.", "min(weft_webhook_certificate_expiry_timestamp_seconds) - time()", "s", HOURS_LEFT, graph=False)),
            (3, stat("Webhook's CA", "Time until the injector's own CA ends; it is replaced long before.", "min(weft_webhook_ca_expiry_timestamp_seconds) - time()", "s", DAYS_LEFT, graph=False)),
        ])]),
        ("Controller", [(7, [
            (6, graph("Discovery streams", "Proxies that follow, by controller.", [("max by (pod) (weft_discovery_streams)", "{{pod}}")])),
            (6, graph("Followed names", "Names that proxies follow, by controller.", [("max by (pod) (weft_discovery_names)", "{{pod}}")])),
            (6, graph("Proxies without a controller", "Proxies whose stream is down, by namespace.", [(f"count by (namespace) ({PROXY}) - sum by (namespace) ({PROXY})", "{{namespace}}")])),
            (6, graph("Routes with problems", "Routes that do not act as written; their status says why.", [("max(weft_routes_with_problems)", "routes")])),
        ]), (7, [
            (6, graph("Watches in step", "1 while a kind of object is followed and all of it was read, by kind; the least of all controllers.", [("min by (kind) (weft_watch_synced)", "{{kind}}")], maximum=1)),
            (6, graph("Watch failures", "Watches of the API server that broke off with an error. Some are normal when an API server restarts.", [(f"sum by (kind) (increase(weft_watch_failures_total[{RATE}]))", "{{kind}}")])),
            (6, graph("Un-meshed pods by namespace", "They were there before the label. `weft check` names them.", [("max by (namespace) (weft_unmeshed_pods)", "{{namespace}}")], stacked=True)),
            (6, graph("Leaders", "Which controller leads.", [("max by (pod) (weft_leader)", "{{pod}}")], maximum=1)),
        ])]),
        ("Identity and injector", [(7, [
            (6, graph("Certificates", "Requests of proxies for certificates by outcome.", [(f"sum by (outcome) (increase(weft_certificates_total[{RATE}]))", "{{outcome}}")], stacked=True)),
            (6, graph("Admissions", "Pods at the webhook by what became of them.", [(f"sum by (outcome) (increase(weft_admissions_total[{RATE}]))", "{{outcome}}")], stacked=True)),
            (6, graph("Failed handshakes of the webhook", "TLS handshakes that failed: the API server does not trust the certificate, or something else knocked.", [(f"sum by (pod) (increase(weft_webhook_handshake_failures_total[{RATE}]))", "{{pod}}")])),
            (6, table("Certificates that end first", "Of proxies and of weft's own programs.", {**WHO}, [("Left", f"bottomk(10, min by (namespace,workload) ({left}) - time())", "s", HOURS_LEFT)], links={"Workload": TO_WORKLOAD})),
        ])]),
        ("Proxies", [(8, [
            (6, graph("Memory of proxies, largest", "In RAM.", [(top(10, f'max by (namespace, workload) (weft_process_resident_memory_bytes{{job="weft-proxy"}})'), "{{namespace}}/{{workload}}")], "bytes")),
            (6, graph("CPU of proxies, largest", "Cores, all pods of a workload together.", [(top(10, f'sum by (namespace, workload) (rate(weft_process_cpu_seconds_total{{job="weft-proxy"}}[{RATE}]))'), "{{namespace}}/{{workload}}")], decimals=3)),
            (6, graph("Metric series, largest", "A proxy's series end at METRIC_SERIES; what is beyond is counted as `other`.", [(top(10, "max by (namespace, workload) (weft_metric_series)"), "{{namespace}}/{{workload}}")])),
            (6, graph("Destinations, largest", "Destinations that a proxy follows.", [(top(10, "max by (namespace, workload) (weft_destinations)"), "{{namespace}}/{{workload}}")])),
        ]), (8, [
            (6, graph("Access-log lines dropped", "Because the queue was full: the reader of standard output is slow.", [(f"sum by (namespace, workload) (increase(weft_access_log_dropped_total[{RATE}]))", "{{namespace}}/{{workload}}")])),
            (6, graph("Spans", "Spans of traces by what became of them, where an OTLP endpoint is configured.", [(f"sum by (outcome) (rate(weft_spans_total[{RATE}]))", "{{outcome}}")], "ops", stacked=True)),
            (6, graph("Memory of weft's programs", "In RAM.", [(f"sum by (pod) (weft_process_resident_memory_bytes{{{CONTROL}}})", "{{pod}}")], "bytes")),
            (6, table("Versions", "Which program runs in which version, how often.", {"program": "Program", "version": "Version"}, [("Processes", "count by (program, version) (weft_build_info)", "short")])),
        ])]),
    ])


PAGES = [protocols, health]
