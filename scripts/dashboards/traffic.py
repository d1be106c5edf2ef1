"""The pages about traffic: the mesh, one workload, routes, and what crosses the mesh's border."""
from grid import (ANY_IS_GOOD, HOURS_LEFT, MESHED, NONE_IS_GOOD, RATE, SLOW, SUCCESS, dashboard, graph, quantile, quantiles, rate, stat, success, table, top, variable)

PROXY = "weft_discovery_connected"  # What every proxy has from its start on, and nothing else has.
NAMESPACES = variable("namespace", "Namespace", f"label_values({PROXY}, namespace)")
NS = 'namespace=~"$namespace"'
WORKLOAD = f'{NS},workload=~"$workload"'
IN, OUT = 'direction="inbound"', 'direction="outbound"'
FAILED = 'reason!="none"'
TO_WORKLOAD = "/d/weft-workload?var-datasource=${datasource}&var-namespace=${__data.fields.Namespace}&var-workload=${__data.fields.Workload}&${__url_time_range}"
TO_ROUTE = "/d/weft-route?var-datasource=${datasource}&var-route=${__data.fields.Route}&${__url_time_range}"
WHO = {"namespace": "Namespace", "workload": "Workload"}


def share(part, whole):
    """A part of the whole, 0 when the part never happened."""
    return f"({part} or 0 * {whole}) / {whole}"


def mesh():
    """What a person looks at first."""
    seen, came = f"{NS},{OUT}", f"{NS},{IN}"
    known = rate("weft_requests_total", came + ',peer!="none"')
    workloads = 10
    return dashboard("weft-mesh", "weft / Mesh", "All meshed workloads: do requests succeed, how many are there, how long do they take, and are they encrypted.", [NAMESPACES], [
        ("", [(4, [
            (4, stat("Success rate", "Share of requests between pods that were not answered with 5xx, as the clients' proxies saw it: what never reached a server is counted too. gRPC failures have a panel of their own.", success(seen), "percentunit", SUCCESS, 2)),
            (4, stat("Requests", "HTTP and gRPC requests that meshed clients sent.", rate("weft_requests_total", seen), "reqps")),
            (4, stat("Latency p99", "99 of 100 requests of meshed clients were done in this time, from the request's head to the end of the response.", quantile(0.99, seen), "s", SLOW)),
            (4, stat("Requests over mTLS", "Share of the requests at meshed servers that came over mutual TLS with a verified identity. Probes of the kubelet and clients without weft are the rest; the page Front door names them.", share(known, rate("weft_requests_total", came + ',rule!="probe"')), "percentunit", MESHED, 1)),
            (4, stat("Open tunnels", "WebSockets, other upgraded connections, and connections of which weft reads only the bytes, open now at meshed servers.", f"sum(weft_tunnels_open{{{came}}})")),
            (4, stat("Meshed pods", "Proxies that tell their metrics.", f"count({PROXY}{{{NS}}})")),
        ])]),
        ("Requests between pods", [(8, [
            (8, graph("Requests by status", "Requests of meshed clients by the class of their status.", [(rate("weft_requests_total", seen, "status"), "{{status}}")], "reqps", stacked=True)),
            (8, graph("Success rate by client", "Share of each client's requests that were not answered with 5xx.", [(success(seen, "namespace,workload"), "{{namespace}}/{{workload}}")], "percentunit", maximum=1, minimum=None)),
            (8, graph("Latency", "Requests of meshed clients, from the head to the end of the response. WebSockets and other tunnels are not in it.", quantiles(seen), "s")),
        ])]),
        ("Workloads", [(9, [
            (12, table("Servers with most requests", "What reaches each workload, as its own proxy saw it. A click on a workload opens its page.", WHO, [
                ("Requests", top(workloads, rate("weft_requests_total", came, "namespace,workload")), "reqps"),
                ("Success", success(came, "namespace,workload"), "percentunit", SUCCESS),
                ("p50", quantile(0.5, came, "namespace,workload"), "s"),
                ("p99", quantile(0.99, came, "namespace,workload"), "s", SLOW),
            ], links={"Workload": TO_WORKLOAD})),
            (12, table("Failures that weft itself saw", "Requests that ended with a reason of weft's own, by who asked for what: docs/metrics.md explains each reason.", {**WHO, "backend": "Backend", "reason": "Reason"}, [
                ("Requests", top(workloads, rate("weft_requests_total", f"{NS},{FAILED}", "namespace,workload,backend,reason") + " > 0"), "reqps"),
            ], links={"Workload": TO_WORKLOAD})),
        ])]),
        ("Protocols", [(8, [
            (8, graph("Requests by protocol", "What meshed clients speak.", [(rate("weft_requests_total", seen, "protocol"), "{{protocol}}")], "reqps", stacked=True)),
            (8, graph("gRPC by status", "gRPC calls of meshed clients by grpc-status: 0 is OK.", [(rate("weft_grpc_responses_total", seen, "grpc_status"), "status {{grpc_status}}")], "reqps", stacked=True)),
            (8, graph("Open tunnels by protocol", "WebSockets, other upgrades and opaque connections, open now at meshed servers.", [(f"sum by (protocol) (weft_tunnels_open{{{came}}})", "{{protocol}}")], "short", stacked=True)),
        ]), (8, [
            (8, graph("Requests by hop", "How weft spoke to the endpoint: mesh is HTTP/2 over mutual TLS, plain and h2c are endpoints without weft, itself is a pod that called itself.", [(rate("weft_requests_total", seen, "hop"), "{{hop}}")], "reqps", stacked=True, share=True)),
            (8, graph("Connections by security", "Connections that meshed servers accepted: one of the mesh carries many requests, one in plaintext often only one.", [(rate("weft_connections_total", came, "security"), "{{security}}")], "cps", stacked=True)),
            (8, graph("Bytes", "Bodies of requests and responses, and what went through tunnels, of meshed clients.", [
                (f'{rate("weft_request_body_bytes_total", seen)} + ({rate("weft_tunnel_received_bytes_total", seen)} or vector(0))', "sent"),
                (f'{rate("weft_response_body_bytes_total", seen)} + ({rate("weft_tunnel_sent_bytes_total", seen)} or vector(0))', "received"),
            ], "Bps")),
        ])]),
    ])


def workload():
    """One workload, both of its sides."""
    came, went = f"{WORKLOAD},{IN}", f"{WORKLOAD},{OUT}"
    one = [NAMESPACES, variable("workload", "Workload", f'label_values({PROXY}{{namespace=~"$namespace"}}, workload)', multi=False)]
    return dashboard("weft-workload", "weft / Workload", "One workload: what reaches it, what it asks of others, and how its proxies fare.", one, [
        ("", [(4, [
            (3, stat("Requests in", "Requests that reached the workload.", rate("weft_requests_total", came), "reqps")),
            (3, stat("Success in", "Share of them that were not answered with 5xx.", success(came), "percentunit", SUCCESS, 2)),
            (3, stat("Latency in, p99", "99 of 100 were done in this time.", quantile(0.99, came), "s", SLOW)),
            (3, stat("Requests out", "Requests that the workload sent.", rate("weft_requests_total", went), "reqps")),
            (3, stat("Success out", "Share of them that were not answered with 5xx.", success(went), "percentunit", SUCCESS, 2)),
            (3, stat("Latency out, p99", "99 of 100 were done in this time.", quantile(0.99, went), "s", SLOW)),
            (3, stat("Pods", "Proxies of this workload that tell their metrics.", f"count({PROXY}{{{WORKLOAD}}})")),
            (3, stat("Certificate left", "Time until the first certificate of its pods ends. It is renewed when a half of its life is left or less.", f"min(weft_certificate_expiry_timestamp_seconds{{{WORKLOAD}}}) - time()", "s", HOURS_LEFT, graph=False)),
        ])]),
        ("Inbound: what reaches it", [(8, [
            (8, graph("Requests in by status", "By the class of the status.", [(rate("weft_requests_total", came, "status"), "{{status}}")], "reqps", stacked=True)),
            (8, graph("Latency in", "From the request's head to the end of the response.", quantiles(came), "s")),
            (8, graph("Failures in by reason", "Requests that ended with a reason of weft's own, and connections that failed before there was a request.", [
                (rate("weft_requests_total", f"{came},{FAILED}", "reason"), "{{reason}}"),
                (rate("weft_connection_faults_total", came, "reason"), "connection: {{reason}}"),
            ], "reqps", stacked=True)),
        ]), (8, [
            (24, table("Clients", "Who asks it, by verified identity. `none` came in plaintext: probes of the kubelet and clients without weft.", {"peer": "Client", "protocol": "Protocol", "rule": "Rule"}, [
                ("Requests", top(20, rate("weft_requests_total", came, "peer,protocol,rule")), "reqps"),
                ("Success", success(came, "peer,protocol,rule"), "percentunit", SUCCESS),
                ("p50", quantile(0.5, came, "peer,protocol,rule"), "s"),
                ("p99", quantile(0.99, came, "peer,protocol,rule"), "s", SLOW),
            ])),
        ])]),
        ("Outbound: what it asks of others", [(8, [
            (8, graph("Requests out by backend", "By the Service that answered: a route can lead elsewhere than the client asked.", [(rate("weft_requests_total", went, "backend"), "{{backend}}")], "reqps", stacked=True)),
            (8, graph("Latency out by backend, p99", "From the request's head to the end of the response.", [(quantile(0.99, went, "backend"), "{{backend}}")], "s")),
            (8, graph("Failures out by reason", "Requests that ended with a reason of weft's own, connections that failed, and attempts that were given up for another one.", [
                (rate("weft_requests_total", f"{went},{FAILED}", "reason"), "{{reason}}"),
                (rate("weft_connection_faults_total", went, "reason"), "connection: {{reason}}"),
                (rate("weft_retries_total", went, "reason"), "retried: {{reason}}"),
            ], "reqps", stacked=True)),
        ]), (8, [
            (24, table("Backends", "What it asks, how weft spoke to it, and how that went.", {"backend": "Backend", "protocol": "Protocol", "hop": "Hop"}, [
                ("Requests", top(20, rate("weft_requests_total", went, "backend,protocol,hop")), "reqps"),
                ("Success", success(went, "backend,protocol,hop"), "percentunit", SUCCESS),
                ("p50", quantile(0.5, went, "backend,protocol,hop"), "s"),
                ("p99", quantile(0.99, went, "backend,protocol,hop"), "s", SLOW),
            ])),
        ])]),
        ("Protocols and proxies", [(8, [
            (6, graph("Detected protocols", "Connections by what their first bytes were.", [(rate("weft_detections_total", WORKLOAD, "direction,outcome"), "{{direction}} {{outcome}}")], "cps", stacked=True)),
            (6, graph("Open connections and tunnels", "Open now.", [
                (f"sum by (direction, security) (weft_connections_open{{{WORKLOAD}}})", "{{direction}} {{security}}"),
                (f"sum by (direction, protocol) (weft_tunnels_open{{{WORKLOAD}}})", "tunnel {{direction}} {{protocol}}"),
            ], "short")),
            (6, graph("Memory of the proxies", "In RAM, by pod.", [(f"sum by (pod) (weft_process_resident_memory_bytes{{{WORKLOAD}}})", "{{pod}}")], "bytes")),
            (6, graph("CPU of the proxies", "Cores, by pod.", [(f"sum by (pod) (rate(weft_process_cpu_seconds_total{{{WORKLOAD}}}[{RATE}]))", "{{pod}}")], "short", decimals=3)),
        ])]),
    ])


def route():
    """HTTPRoutes and GRPCRoutes."""
    took = f'{OUT},route=~"$route",rule=~"$rule",route!="none"'
    chosen = [variable("route", "Route", 'label_values(weft_requests_total{route!="none"}, route)'), variable("rule", "Rule", 'label_values(weft_requests_total{route=~"$route"}, rule)')]
    ended = rate("weft_requests_total", took, "backend")
    return dashboard("weft-route", "weft / Route", "Routes on Services, as the clients' proxies apply them: which rule took how much, to which backend it went, and how that ended.", chosen, [
        ("", [(4, [
            (6, stat("Requests", "Requests that a rule of these routes took.", rate("weft_requests_total", took), "reqps")),
            (6, stat("Success rate", "Share of them that were not answered with 5xx.", success(took), "percentunit", SUCCESS, 2)),
            (6, stat("Latency p99", "99 of 100 were done in this time.", quantile(0.99, took), "s", SLOW)),
            (6, stat("Retries of all clients", "Attempts that were given up for another one. They are counted by reason, and not by route.", rate("weft_retries_total", OUT), "reqps")),
        ])]),
        ("Rules", [(9, [
            (24, table("Rules and backends", "Each rule, each backend that it chose, and how the requests ended.", {"route": "Route", "rule": "Rule", "backend": "Backend"}, [
                ("Requests", top(50, rate("weft_requests_total", took, "route,rule,backend")), "reqps"),
                ("Success", success(took, "route,rule,backend"), "percentunit", SUCCESS),
                ("p50", quantile(0.5, took, "route,rule,backend"), "s"),
                ("p99", quantile(0.99, took, "route,rule,backend"), "s", SLOW),
            ], links={"Route": TO_ROUTE})),
        ]), (8, [
            (8, graph("Requests by rule", "Route and rule.", [(rate("weft_requests_total", took, "route,rule"), "{{route}} {{rule}}")], "reqps", stacked=True)),
            (8, graph("Backend split", "To which backend the requests went: what the weights became.", [(ended, "{{backend}}")], "reqps", stacked=True, share=True)),
            (8, graph("Requests by status", "By the class of the status.", [(rate("weft_requests_total", took, "status"), "{{status}}")], "reqps", stacked=True)),
        ])]),
        ("How it ended", [(8, [
            (8, graph("Latency", "From the request's head to the end of the response.", quantiles(took), "s")),
            (8, graph("Failures by reason", "Requests that ended with a reason of weft's own, as a timeout of the rule, or a rule that names no valid backend.", [(rate("weft_requests_total", f"{took},{FAILED}", "route,rule,reason"), "{{route}} {{rule}}: {{reason}}")], "reqps", stacked=True)),
            (8, graph("Retries by reason, all clients", "Attempts that were given up for another one. Only what was certainly not handled is tried again.", [(rate("weft_retries_total", OUT, "reason"), "{{reason}}")], "reqps", stacked=True)),
        ])]),
    ])


def front_door():
    """What crosses the mesh's border, in both directions."""
    came = f'{NS},{IN},peer="none",rule!="probe"'
    plain = f'{NS},{IN},security="plaintext"'
    left = f'{NS},{OUT},hop=~"plain|h2c"'
    refused = 'reason=~"plaintext_refused|not_allowed|foreign_authority"'
    door = f'{NS},direction="gateway"'
    return dashboard("weft-front-door", "weft / Front door",
        "What comes into the mesh from outside of it, and what leaves it: weft's own gateways, and past them gateways of other makers and clients without weft, which come in plaintext "
        "and have no identity.", [NAMESPACES], [
        ("", [(4, [
            (4, stat("Requests from outside", "Requests without an identity of the mesh at meshed servers: gateways of other makers and clients without weft. Probes of the kubelet are not counted.", rate("weft_requests_total", came), "reqps")),
            (4, stat("Their success rate", "Share of them that were not answered with 5xx.", success(came), "percentunit", SUCCESS, 2)),
            (4, stat("Their latency p99", "99 of 100 were done in this time.", quantile(0.99, came), "s", SLOW)),
            (4, stat("Plaintext connections open", "Open now at meshed servers.", f"sum(weft_connections_open{{{plain}}})")),
            (4, stat("Refused", "Requests and connections that were refused because they had no identity, or not the right one: weft.dev/mtls: strict does that.",
                     f'(sum(rate(weft_requests_total{{{NS},{IN},{refused}}}[{RATE}])) or vector(0)) + (sum(rate(weft_connection_faults_total{{{NS},{IN},{refused}}}[{RATE}])) or vector(0))', "reqps")),
            (4, stat("Requests that leave", "Requests of meshed clients to endpoints without weft, in the cluster or outside of it.", rate("weft_requests_total", left), "reqps")),
        ])]),
        ("weft's own gateways", [(8, [
            (8, graph("Requests by listener", "What the clients of weft's gateways asked for.", [(rate("weft_requests_total", door, "namespace,workload,listener"), "{{namespace}}/{{workload}}: {{listener}}")], "reqps", stacked=True)),
            (8, graph("Requests at gateways by status", "By the class of the status.", [(rate("weft_requests_total", door, "status"), "{{status}}")], "reqps", stacked=True)),
            (8, graph("Latency at gateways", "From the request's head to the end of the response.", quantiles(door), "s")),
        ]), (8, [
            (8, graph("Success rate by backend", "Share of a backend's requests that were not answered with 5xx, as gateways saw it.", [(success(door, "backend"), "{{backend}}")], "percentunit", maximum=1, minimum=None)),
            (8, graph("Connections open at gateways", "By what protects them: tls where a listener ends it.", [(f"sum by (namespace,workload,security) (weft_connections_open{{{door}}})", "{{namespace}}/{{workload}}: {{security}}")], "short", stacked=True)),
            (8, graph("Failures at gateways by reason", "Requests that ended with a reason of weft's own: docs/metrics.md explains each.", [(rate("weft_requests_total", f"{door},{FAILED}", "namespace,workload,reason"), "{{namespace}}/{{workload}}: {{reason}}")], "reqps", stacked=True)),
        ]), (8, [
            (12, graph("Listeners", "Those that serve, and those that cannot because of their TLS configuration.", [(f"sum by (namespace,workload,state) (weft_gateway_listeners{{{NS}}})", "{{namespace}}/{{workload}}: {{state}}")], "short", stacked=True)),
            (12, graph("Tunnels at gateways by protocol", "WebSockets, other upgrades and connections of which weft reads only the bytes, as they end.", [(rate("weft_tunnels_total", door, "namespace,workload,protocol"), "{{namespace}}/{{workload}}: {{protocol}}")], "ops", stacked=True)),
        ])]),
        ("What comes in past them", [(8, [
            (8, graph("Requests from outside by workload", "Which workloads are reached without an identity.", [(rate("weft_requests_total", came, "namespace,workload"), "{{namespace}}/{{workload}}")], "reqps", stacked=True)),
            (8, graph("Requests from outside by status", "By the class of the status.", [(rate("weft_requests_total", came, "status"), "{{status}}")], "reqps", stacked=True)),
            (8, graph("Their latency", "From the request's head to the end of the response.", quantiles(came), "s")),
        ]), (8, [
            (8, graph("Connections in plaintext by workload", "Accepted, probes of the kubelet among them.", [(rate("weft_connections_total", plain, "namespace,workload"), "{{namespace}}/{{workload}}")], "cps", stacked=True)),
            (8, graph("What they speak", "Requests and tunnels from outside by protocol.", [
                (rate("weft_requests_total", came, "protocol"), "{{protocol}}"),
                (rate("weft_tunnels_total", f'{NS},{IN},peer="none"', "protocol"), "tunnel: {{protocol}}"),
            ], "ops", stacked=True)),
            (8, graph("Refused by reason", "Requests that were answered with 403, and connections that were closed.", [
                (rate("weft_requests_total", f"{NS},{IN},{refused}", "namespace,workload,reason"), "{{namespace}}/{{workload}}: {{reason}}"),
                (rate("weft_connection_faults_total", f"{NS},{IN},{refused}", "namespace,workload,reason"), "connection to {{namespace}}/{{workload}}: {{reason}}"),
            ], "ops", stacked=True)),
        ])]),
        ("What leaves", [(8, [
            (8, graph("Requests that leave by backend", "Requests to endpoints without weft. `none` is a destination that no Service has.", [(rate("weft_requests_total", left, "backend"), "{{backend}}")], "reqps", stacked=True)),
            (8, graph("Their success rate", "Share of them that were not answered with 5xx, by client.", [(success(left, "namespace,workload"), "{{namespace}}/{{workload}}")], "percentunit", maximum=1, minimum=None)),
            (8, graph("Tunnels that leave", "WebSockets, upgrades and opaque connections to endpoints without weft, as they end.", [(rate("weft_tunnels_total", left, "protocol,backend"), "{{protocol}} {{backend}}")], "ops", stacked=True)),
        ]), (8, [
            (12, table("Who is reached from outside", "Without an identity, by workload.", {**WHO, "protocol": "Protocol"}, [
                ("Requests", top(20, rate("weft_requests_total", came, "namespace,workload,protocol")), "reqps"),
                ("Success", success(came, "namespace,workload,protocol"), "percentunit", SUCCESS),
                ("p99", quantile(0.99, came, "namespace,workload,protocol"), "s", SLOW),
            ], links={"Workload": TO_WORKLOAD})),
            (12, table("Who calls outside", "Meshed clients and the endpoints without weft that they call.", {**WHO, "backend": "Backend", "hop": "Hop"}, [
                ("Requests", top(20, rate("weft_requests_total", left, "namespace,workload,backend,hop")), "reqps"),
                ("Success", success(left, "namespace,workload,backend,hop"), "percentunit", SUCCESS),
                ("p99", quantile(0.99, left, "namespace,workload,backend,hop"), "s", SLOW),
            ], links={"Workload": TO_WORKLOAD})),
        ])]),
    ])


PAGES = [mesh, workload, route, front_door]
