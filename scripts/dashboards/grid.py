"""Grafana's JSON, in a few words: panels, rows of panels on the grid of 24 columns, and a dashboard around them.

What a dashboard shows is in the files beside this one. Colours and units are said here once, so that a thing has the same
colour on every page.
"""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
TAG = "weft"
RATE = "$__rate_interval"

GREEN, YELLOW, ORANGE, RED = "#56A64B", "#F2CC0C", "#FF780A", "#E02F44"
BLUE, LIGHT_BLUE, PURPLE, GREY, TEAL = "#3274D9", "#8AB8FF", "#A352CC", "#8E8E8E", "#2BB5A0"

# The colour of a series by the value of the label that is its legend, or by its legend.
_PROTOCOLS = {
    "http1": BLUE, "http2": TEAL, "grpc": PURPLE, "websocket": YELLOW, "upgrade": ORANGE, "connect": LIGHT_BLUE, "tls": GREEN, "opaque": GREY,
    "unknown": RED,
}
COLOURS = {
    "{{status}}": {"1xx": LIGHT_BLUE, "2xx": GREEN, "3xx": BLUE, "4xx": YELLOW, "5xx": RED, "none": GREY},
    "{{hop}}": {"mesh": GREEN, "plain": ORANGE, "h2c": YELLOW, "itself": LIGHT_BLUE, "none": GREY},
    "{{security}}": {"mesh": GREEN, "plaintext": ORANGE},
    "{{protocol}}": _PROTOCOLS,
    "{{outcome}}": {
        **_PROTOCOLS, "issued": GREEN, "refused": RED, "injected": GREEN, "unchanged": BLUE, "malformed": ORANGE, "late": YELLOW,
        "exported": GREEN, "dropped": ORANGE, "failed": RED,
    },
    "p50": {"p50": LIGHT_BLUE}, "p90": {"p90": BLUE}, "p99": {"p99": PURPLE}, "received": {"received": BLUE}, "sent": {"sent": TEAL},
}


def steps(*pairs):
    """Thresholds: a colour from each value on; the first one holds from the beginning."""
    return {"mode": "absolute", "steps": [{"color": colour, "value": value} for value, colour in pairs]}


PLAIN = steps((None, BLUE))
SUCCESS = steps((None, RED), (0.95, ORANGE), (0.99, YELLOW), (0.999, GREEN))
MESHED = steps((None, ORANGE), (0.9, YELLOW), (0.99, GREEN))
SLOW = steps((None, GREEN), (0.25, YELLOW), (1, ORANGE), (5, RED))
NONE_IS_GOOD = steps((None, GREEN), (1, RED))
ANY_IS_GOOD = steps((None, RED), (1, GREEN))
HOURS_LEFT = steps((None, RED), (3600, ORANGE), (4 * 3600, GREEN))
DAYS_LEFT = steps((None, RED), (7 * 86400, ORANGE), (30 * 86400, GREEN))


def _targets(queries, instant, form):
    if isinstance(queries, str):
        queries = [(queries, "")]
    found = []
    for number, (expr, legend) in enumerate(queries):
        target = {"refId": chr(ord("A") + number), "datasource": SOURCE, "editorMode": "code", "expr": expr, "legendFormat": legend or "__auto"}
        found.append({**target, "instant": instant, "range": not instant, "format": form})
    return found


def _panel(kind, title, description, queries, unit, thresholds, *, instant=False, form="time_series", decimals=None, minimum=None, maximum=None):
    defaults = {"unit": unit, "color": {"mode": "thresholds" if kind in ("stat", "gauge") else "palette-classic"}, "thresholds": thresholds, "mappings": []}
    for name, value in (("decimals", decimals), ("min", minimum), ("max", maximum)):
        if value is not None:
            defaults[name] = value
    return {
        "type": kind, "title": title, "description": description, "datasource": SOURCE,
        "targets": _targets(queries, instant, form), "fieldConfig": {"defaults": defaults, "overrides": []},
    }


def stat(title, description, expr, unit="short", thresholds=PLAIN, decimals=None, graph=True):
    """One number, with its course behind it."""
    panel = _panel("stat", title, description, expr, unit, thresholds, decimals=decimals)
    panel["options"] = {
        "colorMode": "value", "graphMode": "area" if graph else "none", "justifyMode": "auto", "orientation": "auto", "textMode": "value",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return panel


def graph(title, description, queries, unit="short", stacked=False, share=False, minimum=0, maximum=None, decimals=None):
    """Courses over time. `stacked` for parts of a whole, `share` for parts of 100 %."""
    panel = _panel("timeseries", title, description, queries, unit, PLAIN, minimum=minimum, maximum=maximum, decimals=decimals)
    panel["fieldConfig"]["defaults"]["custom"] = {
        "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1 if stacked else 2, "fillOpacity": 60 if stacked else 8,
        "gradientMode": "none", "showPoints": "never", "spanNulls": False, "pointSize": 4, "axisPlacement": "auto", "axisLabel": "",
        "stacking": {"mode": ("percent" if share else "normal") if stacked else "none", "group": "A"},
        "scaleDistribution": {"type": "linear"}, "thresholdsStyle": {"mode": "off"},
    }
    panel["fieldConfig"]["overrides"] = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}
        for _, legend in ([] if isinstance(queries, str) else queries) for name, colour in COLOURS.get(legend, {}).items()
    ]
    panel["options"] = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel


def table(title, description, labels, columns, sort=None, links=None):
    """A line for each combination of labels. `labels`: label → heading; `columns`: (heading, expression, unit, thresholds);
    `links`: heading → where a click on its values leads."""
    panel = _panel("table", title, description, [(expr, "") for _, expr, *_ in columns], "short", PLAIN, instant=True, form="table")
    values = [f"Value #{chr(ord('A') + n)}" if len(columns) > 1 else "Value" for n in range(len(columns))]
    panel["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {
            "excludeByName": {"Time": True},
            "indexByName": {name: place for place, name in enumerate([*labels, *values])},
            "renameByName": {**labels, **{value: column[0] for value, column in zip(values, columns)}},
        }},
    ]
    for heading, _, unit, *more in columns:
        properties = [{"id": "unit", "value": unit}]
        if more and more[0] is not None:
            properties += [{"id": "thresholds", "value": more[0]}, {"id": "custom.cellOptions", "value": {"type": "color-text"}}, {"id": "color", "value": {"mode": "thresholds"}}]
        panel["fieldConfig"]["overrides"].append({"matcher": {"id": "byName", "options": heading}, "properties": properties})
    for heading, address in (links or {}).items():
        link = {"id": "links", "value": [{"title": "Look at ${__value.text}", "url": address}]}
        panel["fieldConfig"]["overrides"].append({"matcher": {"id": "byName", "options": heading}, "properties": [link]})
    panel["fieldConfig"]["defaults"]["custom"] = {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False}
    panel["options"] = {
        "cellHeight": "sm", "showHeader": True, "footer": {"show": False, "reducer": ["sum"], "fields": ""},
        "sortBy": [{"displayName": sort or columns[0][0], "desc": True}],
    }
    return panel


def variable(name, label, query, multi=True, everything=True):
    """A choice, filled from the labels of a series."""
    made = {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "definition": query, "query": {"query": query, "refId": "variable"},
        "refresh": 2, "sort": 1, "multi": multi, "includeAll": everything, "hide": 0, "regex": "", "skipUrlSync": False, "options": [], "current": {},
    }
    if everything:
        made |= {"allValue": ".*", "current": {"selected": True, "text": ["All"] if multi else "All", "value": ["$__all"] if multi else "$__all"}}
    return made


def dashboard(name, title, description, variables, rows, since="now-1h"):
    """The whole page. `rows`: (title, [(height, [(width, panel), ...]), ...])."""
    panels, y = [], 0

    def place(panel, x, width, height):
        panels.append({"id": len(panels) + 1, **panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}})

    for heading, lines in rows:
        if heading:
            place({"type": "row", "title": heading, "collapsed": False, "panels": []}, 0, 24, 1)
            y += 1
        for height, line in lines:
            x = 0
            for width, panel in line:
                place(panel, x, width, height)
                x += width
            assert x == 24, f"{title}: the line of {line[0][1]['title']!r} is {x} wide"
            y += height
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0, "multi": False,
              "includeAll": False, "regex": "", "skipUrlSync": False, "options": [], "current": {}}
    links = [{"type": "dashboards", "title": "weft", "tags": [TAG], "asDropdown": True, "includeVars": True, "keepTime": True, "targetBlank": False,
              "icon": "external link", "tooltip": "", "url": ""}]
    return {
        "uid": name, "title": title, "description": description, "tags": [TAG], "editable": True, "graphTooltip": 1, "schemaVersion": 39, "version": 1,
        "id": None, "timezone": "", "time": {"from": since, "to": "now"}, "refresh": "30s", "fiscalYearStartMonth": 0, "liveNow": False, "weekStart": "",
        "timepicker": {}, "annotations": {"list": []}, "links": links, "templating": {"list": [source, *variables]}, "panels": panels,
    }


def rate(metric, selector, by=""):
    """Sum of a counter's rates."""
    group = f" by ({by}) " if by else ""
    return f"sum{group}(rate({metric}{{{selector}}}[{RATE}]))"


def success(selector, by=""):
    """Share of requests that were not answered with 5xx. A workload without any failure has no series of failures: hence the zero."""
    every = rate("weft_requests_total", selector, by)
    failed = rate("weft_requests_total", f'{selector},status="5xx"', by)
    return f"1 - ({failed} or 0 * {every}) / {every}"


def quantile(share, selector, by="", metric="weft_request_duration_seconds"):
    """A quantile of a histogram, in seconds."""
    group = f"le,{by}" if by else "le"
    return f"histogram_quantile({share}, {rate(metric + '_bucket', selector, group)})"


def quantiles(selector, metric="weft_request_duration_seconds"):
    """The three that every page shows."""
    return [(quantile(share, selector, metric=metric), name) for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))]


def top(count, expr):
    """The largest ones."""
    return f"topk({count}, {expr})"
