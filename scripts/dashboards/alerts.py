"""The alerts: each with its expression, what it says to the one who is called, and its section of docs/runbook.md."""
from dataclasses import dataclass

PAGE = "docs/runbook.md"


@dataclass
class Alert:
    """One rule. `wait` is Prometheus' `for`; `look` are commands, `do` are sentences."""
    name: str
    expr: str
    wait: str
    severity: str
    summary: str
    description: str
    means: str
    look: list
    do: list


HOUR, DAY = 3600, 86400
LOGS = "kubectl logs -n weft-system deploy/{0} --since=15m"
PROXY_LOG = "kubectl logs -n NAMESPACE POD -c weft-proxy --since=15m"

ALERTS = [
    Alert(
        "WeftControllerDown", 'absent(weft_discovery_streams) or sum(up{job="weft-system", workload=~"weft-routes|weft-controller"}) == 0', "3m", "critical",
        "No controller of weft answers",
        "No replica of weft-routes tells its metrics. Known traffic goes on; new pods, changed endpoints and routes do not reach the proxies.",
        "No replica of `weft-routes` could be scraped. Proxies go on with what they know, endpoints that fail are left out, and pods that start anew wait.",
        ["kubectl get pods -n weft-system -o wide", "kubectl describe deploy -n weft-system weft-routes", LOGS.format("weft-routes"), "kubectl get networkpolicy -n weft-system"],
        ["When the pods run and are ready, Prometheus cannot reach port 15021: look at NetworkPolicies and at the scrape configuration.", "When they crash, the last lines of their log say why; a missing permission is named with its verb and kind.", "When they are missing, apply the manifests again: all of weft comes back unaided."],
    ),
    Alert(
        "WeftControlPlaneTargetDown", 'up{job="weft-system"} == 0', "5m", "warning",
        "{{ $labels.workload }} does not answer Prometheus",
        "{{ $labels.pod }} in {{ $labels.namespace }} could not be scraped for five minutes.",
        "One pod of weft's own programs is not reached on port 15021. Others may still do its work.",
        ["kubectl get pods -n weft-system -o wide", "kubectl describe pod -n weft-system POD"],
        ["A pod that is not ready says in its events and on `/ready` what is missing.", "A pod that is ready and not scraped: a NetworkPolicy of yours shuts Prometheus out."],
    ),
    Alert(
        "WeftControllerAway", "(1 - avg by (namespace) (weft_discovery_connected)) > 0.1", "5m", "warning",
        "{{ $value | humanizePercentage }} of the proxies in {{ $labels.namespace }} are without the controller",
        "Their stream to weft-routes is down. Known traffic goes on, changes do not reach them.",
        "`weft_discovery_connected` is 0 for more than a tenth of the proxies of a namespace. They answer from what they know, and say 503 `discovery_timeout` for what nobody asked for before.",
        [PROXY_LOG, LOGS.format("weft-routes"), "kubectl get endpointslices -n weft-system"],
        ["All namespaces at once: the controller is down or not reached; see WeftControllerDown.", "One namespace: a NetworkPolicy there forbids port 15010 to weft-system.", "After an outage of the CA: a proxy with an expired certificate is refused; see WeftWorkloadCertificateExpiring."],
    ),
    Alert(
        "WeftNoLeader", "sum(max by (pod) (weft_leader)) == 0 or absent(weft_leader)", "2m", "warning",
        "No controller leads",
        "Nobody holds the Lease weft-routes: the cluster's ranges and events are not written. Traffic is not touched.",
        "What only one replica may write, as the ConfigMap weft-cluster and events about pods that are not meshed, is written by nobody.",
        ["kubectl get lease -n weft-system weft-routes -o yaml", LOGS.format("weft-routes")],
        ["A log line names the permission that is missing, or the API server that does not answer.", "A Lease whose holder is gone is taken over by itself after seconds."],
    ),
    Alert(
        "WeftTwoLeaders", "sum(max by (pod) (weft_leader)) > 1", "2m", "warning",
        "{{ $value }} controllers say that they lead",
        "Two replicas hold the Lease for minutes, which a working clock and API server do not allow.",
        "Each of them writes what the other one wrote. It is the same, unless their versions differ.",
        ["kubectl get lease -n weft-system weft-routes -o yaml", "kubectl get pods -n weft-system -l app.kubernetes.io/name=weft-routes -o wide"],
        ["Delete the pod that is not named in the Lease.", "Look at the clocks of the nodes."],
    ),
    Alert(
        "WeftWatchFailing", "sum by (kind) (increase(weft_watch_failures_total[10m])) > 5", "10m", "warning",
        "The watch of {{ $labels.kind }} breaks off again and again",
        "{{ $value | humanize }} failures in ten minutes. What is known stays; changes come late.",
        "The API server ends or refuses the controller's watch. Once after a restart of the API server is normal.",
        [LOGS.format("weft-routes"), "kubectl auth can-i watch KIND --as=system:serviceaccount:weft-system:weft-routes", "kubectl get --raw /readyz?verbose"],
        ["`can-i` says no: apply the manifests again, they hold the ClusterRole.", "The API server is slow: the controller waits longer each time, and nothing has to be done in weft."],
    ),
    Alert(
        "WeftWatchNotSynced", "min by (kind) (weft_watch_synced) == 0", "5m", "warning",
        "{{ $labels.kind }} are not followed",
        "A controller has not read all objects of this kind for five minutes.",
        "The controller works with an old state of this kind, or with none: a replica that has never read all is not ready.",
        [LOGS.format("weft-routes"), "kubectl auth can-i list KIND --as=system:serviceaccount:weft-system:weft-routes"],
        ["A kind that the cluster does not have is not counted: if it was deleted, as with the CRDs of the Gateway API, install it again or restart weft-routes."],
    ),
    Alert(
        "WeftPodsNotMeshed", "max by (namespace) (weft_unmeshed_pods) > 0", "15m", "warning",
        "{{ $value }} pods in {{ $labels.namespace }} are not meshed",
        "The namespace is labelled weft.dev/inject=enabled, and these pods have no proxy: most were there before the label.",
        "They speak plaintext, and meshed servers with `weft.dev/mtls: strict` refuse them.",
        ["weft check", "kubectl get events -n NAMESPACE --field-selector reason=NotMeshed"],
        ["`kubectl rollout restart deploy,statefulset,daemonset -n NAMESPACE` meshes them.", "A pod that must not be meshed: `weft.dev/inject: disabled` on its template.", "Pods that are made anew and still are not meshed: the webhook is missing or is not called; see WeftAdmissionsFailing."],
    ),
    Alert(
        "WeftPlaintextShareHigh",
        'sum by (namespace, workload) (rate(weft_requests_total{direction="inbound", peer="none", rule!="probe"}[10m]))\n'
        '  / sum by (namespace, workload) (rate(weft_requests_total{direction="inbound", rule!="probe"}[10m])) > 0.1',
        "15m", "warning",
        "{{ $value | humanizePercentage }} of the requests at {{ $labels.namespace }}/{{ $labels.workload }} come in plaintext",
        "They have no identity: clients without weft, or a gateway of another maker. Probes of the kubelet are not counted.",
        "A tenth or more of the requests came without mutual TLS for fifteen minutes.",
        ["weft check", PROXY_LOG + " | grep '\"security\":\"plaintext\"'", "the page “weft / Front door” in Grafana"],
        ["Mesh the clients: label their namespace and restart them.", "A gateway or a client outside of the cluster: expected; silence the alert for this workload.", "When none is left, `weft.dev/mtls: strict` on the namespace refuses plaintext from then on."],
    ),
    Alert(
        "WeftPlaintextRefused",
        'sum by (namespace, workload) (increase(weft_requests_total{direction="inbound", reason="plaintext_refused"}[10m])) > 0\n'
        '  or sum by (namespace, workload) (increase(weft_connection_faults_total{direction="inbound", reason="plaintext_refused"}[10m])) > 0',
        "5m", "info",
        "{{ $labels.namespace }}/{{ $labels.workload }} refuses clients without an identity",
        "`weft.dev/mtls: strict` is set, and something still calls in plaintext.",
        "It works as configured. Somebody's requests fail, and they may not know why.",
        [PROXY_LOG + " | grep plaintext_refused"],
        ["The access log has the client's address: mesh that pod, or take the label `weft.dev/mtls: strict` off until it is."],
    ),
    Alert(
        "WeftHopsFailing",
        'sum by (namespace, workload) (rate(weft_hop_connections_total{outcome!="ok"}[5m]))\n'
        '  / sum by (namespace, workload) (rate(weft_hop_connections_total[5m])) > 0.1\n'
        '  and sum by (namespace, workload) (rate(weft_hop_connections_total{outcome!="ok"}[5m])) > 0.1',
        "10m", "warning",
        "{{ $value | humanizePercentage }} of the connections that {{ $labels.namespace }}/{{ $labels.workload }} opens fail",
        "Its proxies cannot open connections to endpoints. The label outcome says why.",
        "More than a tenth of the connections to endpoints fail, and more than one in ten seconds.",
        ["sum by (hop, outcome) (rate(weft_hop_connections_total{namespace=\"NAMESPACE\",workload=\"WORKLOAD\",outcome!=\"ok\"}[5m]))", PROXY_LOG + " | grep '\"stage\":\"hop\"'"],
        ["`connect_refused`: the application does not listen on the port of its Service.", "`unreachable`, `connect_timeout`: network, NetworkPolicy, or a node that is gone.", "`server_identity`: the pod at this address is not who the controller said; see the two ids in the log.", "`server_tls`: certificates: see WeftWorkloadCertificateExpiring, and the clocks of the nodes."],
    ),
    Alert(
        "WeftWorkloadErrors",
        'sum by (namespace, workload) (rate(weft_requests_total{direction="inbound", status="5xx"}[5m]))\n'
        '  / sum by (namespace, workload) (rate(weft_requests_total{direction="inbound"}[5m])) > 0.05\n'
        '  and sum by (namespace, workload) (rate(weft_requests_total{direction="inbound", status="5xx"}[5m])) > 0.1',
        "10m", "warning",
        "{{ $value | humanizePercentage }} of the requests at {{ $labels.namespace }}/{{ $labels.workload }} fail",
        "More than 5 % of its answers are 5xx.",
        "The workload's own proxy saw these answers. With the reason `none` the application gave them itself.",
        ["sum by (reason) (rate(weft_requests_total{direction=\"inbound\",namespace=\"NAMESPACE\",workload=\"WORKLOAD\",status=\"5xx\"}[5m]))", "the page “weft / Workload” in Grafana"],
        ["Reason `none`: look at the application.", "Another reason: docs/metrics.md explains it; the field `weft-error` of the answer and the access log say more."],
    ),
    Alert(
        "WeftWorkloadCertificateExpiring", f'min by (namespace, workload) (weft_certificate_expiry_timestamp_seconds{{job="weft-proxy"}}) - time() < {6 * HOUR}', "10m", "warning",
        "A certificate of {{ $labels.namespace }}/{{ $labels.workload }} ends in {{ $value | humanizeDuration }}",
        "It lives a day and is renewed before a half of that: renewals fail. When it ends, its traffic is refused.",
        "The proxy asked weft-identity in vain. It goes on with its certificate until the end of it, then refuses, and is not ready.",
        [PROXY_LOG + " | grep -i certificate", LOGS.format("weft-identity"), "sum by (outcome) (increase(weft_certificates_total[1h]))"],
        ["Many workloads: weft-identity is down, or its Secret weft-ca is gone.", "One: its ServiceAccount token is refused; the log of weft-identity says why."],
    ),
    Alert(
        "WeftWorkloadCertificateEnds", f'min by (namespace, workload) (weft_certificate_expiry_timestamp_seconds{{job="weft-proxy"}}) - time() < {HOUR}', "1m", "critical",
        "A certificate of {{ $labels.namespace }}/{{ $labels.workload }} ends in less than an hour",
        "After it, mutual TLS from and to this workload is refused.",
        "As WeftWorkloadCertificateExpiring, and it is urgent.",
        [LOGS.format("weft-identity"), "kubectl get secret -n weft-system weft-ca"],
        ["Bring weft-identity back: proxies ask again every few seconds, nothing has to be restarted.", "If it cannot be brought back, `weft.dev/inject: disabled` on the template and a restart take a workload out of the mesh; strict servers refuse it then."],
    ),
    Alert(
        "WeftControlPlaneCertificateExpiring", f'min by (workload, id) (weft_certificate_expiry_timestamp_seconds{{job="weft-system"}}) - time() < {6 * HOUR}', "10m", "critical",
        "The certificate of {{ $labels.id }} ends in {{ $value | humanizeDuration }}",
        "When it ends, proxies refuse the controller.",
        "weft's own programs have certificates of the same CA, and renew them in the same way.",
        [LOGS.format("weft-identity"), LOGS.format("weft-routes")],
        ["The log names what failed. A restart of the Deployment asks at once."],
    ),
    Alert(
        "WeftCaExpiring", f"min(weft_ca_expiry_timestamp_seconds) - time() < {30 * DAY}", "1h", "warning",
        "The mesh's CA ends in {{ $value | humanizeDuration }}",
        "No certificate lives longer than the CA: when it ends, so does all mutual TLS.",
        "The CA in the Secret weft-ca lives a year. Certificates never outlive it.",
        ["kubectl get secret -n weft-system weft-ca -o jsonpath='{.data.ca\\.crt}' | base64 -d | openssl x509 -noout -dates"],
        ["Put a new CA into the Secret, and both certificates, old and new, into its `ca-bundle.crt`: proxies then trust both while the old one fades out."],
    ),
    Alert(
        "WeftWebhookCertificateExpiring", f"min(weft_webhook_certificate_expiry_timestamp_seconds) - time() < {4 * HOUR}", "10m", "critical",
        "The webhook's certificate ends in {{ $value | humanizeDuration }}",
        "When it ends, no pod can be made in labelled namespaces: the webhook fails closed.",
        "The injector makes it itself, for a day, and renews it when a third is left.",
        [LOGS.format("weft-injector"), "kubectl get secret -n weft-system weft-injector-webhook"],
        ["`kubectl rollout restart -n weft-system deploy/weft-injector` makes a new one at once.", "The log names a missing permission on the Secret or the webhook's configuration."],
    ),
    Alert(
        "WeftWebhookCaExpiring", f"min(weft_webhook_ca_expiry_timestamp_seconds) - time() < {14 * DAY}", "1h", "warning",
        "The injector's own CA ends in {{ $value | humanizeDuration }}",
        "It is replaced sixty days before its end: that has failed for weeks.",
        "The CA in the Secret weft-injector-webhook signs the webhook's certificates; the API server knows it by `caBundle`.",
        [LOGS.format("weft-injector"), "kubectl get mutatingwebhookconfiguration weft-injector -o yaml"],
        ["The log names what failed.", "Deleted, the Secret is made anew, and `caBundle` follows within seconds; in between pods are refused in labelled namespaces."],
    ),
    Alert(
        "WeftAdmissionsFailing", 'sum by (outcome) (increase(weft_admissions_total{outcome=~"malformed|late"}[10m])) > 0 or sum(increase(weft_webhook_handshake_failures_total[10m])) > 5', "5m", "warning",
        "Calls of the webhook fail",
        "Pods in labelled namespaces cannot be made, or only after more attempts.",
        "`late` calls took longer than the webhook may, `malformed` ones were no reviews; failed handshakes mean that the API server does not trust the certificate.",
        [LOGS.format("weft-injector"), "kubectl get events -A --field-selector reason=FailedCreate"],
        ["`late`: the injector has too little CPU.", "Handshakes: compare `caBundle` of the MutatingWebhookConfiguration with the Secret weft-injector-webhook; a restart of the injector writes it anew."],
    ),
    Alert(
        "WeftCertificatesRefused", 'sum(increase(weft_certificates_total{outcome="refused"}[10m])) > 0', "10m", "warning",
        "weft-identity refuses certificates",
        "{{ $value | humanize }} requests in ten minutes were refused.",
        "A proxy asked for an identity that its token does not prove, or the API server could not say.",
        [LOGS.format("weft-identity")],
        ["The log says which pod, and why.", "A pod that does this and is none of yours: somebody tries."],
    ),
    Alert(
        "WeftLimitReached", "sum by (namespace, workload, limit) (increase(weft_limit_reached_total[10m])) > 0", "5m", "warning",
        "{{ $labels.namespace }}/{{ $labels.workload }} reached the limit {{ $labels.limit }}",
        "{{ $value | humanize }} times in ten minutes. What is beyond it is refused or waits.",
        "Every queue and every number in weft is bounded. This one was full.",
        ["weft limits", PROXY_LOG],
        ["`CONNECTIONS`, `WAITING`: more replicas, or a client that does not stop.", "`HEAD`, `HEAD_FIELDS`: a client sends heads that are too large; the access log names it.", "`ACCESS_LOG`: see WeftAccessLogDropped."],
    ),
    Alert(
        "WeftAccessLogDropped", "sum by (namespace, workload) (increase(weft_access_log_dropped_total[10m])) > 0", "10m", "info",
        "Lines of the access log of {{ $labels.namespace }}/{{ $labels.workload }} are lost",
        "{{ $value | humanize }} lines in ten minutes: the reader of standard output is too slow. Traffic does not wait for it.",
        "The queue of lines was full. Metrics have counted the requests all the same.",
        ["kubectl top pod -n NAMESPACE", "df -h on the node"],
        ["A node whose disk is full or slow.", "Very many requests: `WEFT_ACCESS_LOG=off`, or a faster log pipeline."],
    ),
    Alert(
        "WeftMetricSeriesAtCap", "weft_metric_series > 9000", "10m", "info",
        "A proxy of {{ $labels.namespace }}/{{ $labels.workload }} has {{ $value }} metric series",
        "At METRIC_SERIES (10 000) further ones are counted as `other`.",
        "It talks to very many backends and peers. Nothing breaks; details are lost.",
        ["topk(10, count by (backend) ({namespace=\"NAMESPACE\",workload=\"WORKLOAD\"}))"],
        ["A restart of the pod forgets the names of what is gone."],
    ),
    Alert(
        "WeftSpansLost", 'sum by (namespace, workload, outcome) (rate(weft_spans_total{outcome!="exported"}[10m])) > 0.1', "10m", "info",
        "Spans of {{ $labels.namespace }}/{{ $labels.workload }} are {{ $labels.outcome }}",
        "The OTLP receiver is away or too slow. Traffic does not wait for it.",
        "`failed`: the receiver did not take them. `dropped`: the queue was full.",
        [PROXY_LOG + " | grep -i otlp"],
        ["Look at the receiver; the address is in the environment WEFT_OTLP_ENDPOINT of the proxies.", "Lower `--trace-sampling` of the injector."],
    ),
    Alert(
        "WeftRoutesWithProblems", "max(weft_routes_with_problems) > 0", "15m", "info",
        "{{ $value }} routes do not act as written",
        "A route names a backend that is not there, or a filter that weft does not have.",
        "The rest of each route acts. Its status says what does not.",
        ["kubectl get httproutes,grpcroutes -A -o json | jq '.items[] | select(any(.status.parents[]?.conditions[]?; .status==\"False\")) | [.metadata.namespace, .metadata.name, .status]'"],
        ["Correct the route, or add the ReferenceGrant that it needs."],
    ),
    Alert(
        "WeftProxyDown", 'up{job="weft-proxy"} == 0', "10m", "warning",
        "The proxy of {{ $labels.namespace }}/{{ $labels.pod }} does not answer Prometheus",
        "Either it does not run, or Prometheus may not reach its port 15020.",
        "The pod has no traffic through weft while its proxy is away: nothing goes past it.",
        ["kubectl describe pod -n NAMESPACE POD", PROXY_LOG.replace("--since=15m", "--previous")],
        ["Restarts: the last lines of the log and `weft_process_start_time_seconds` say when and why.", "It runs: a NetworkPolicy shuts Prometheus out; allow port 15020."],
    ),
]
