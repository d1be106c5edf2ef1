//! What weft has to say of an object, put into the `.status` that is there. Pure.
//!
//! Of a route's parents and a policy's ancestors those of other controllers stay as and where they are. A condition keeps its
//! `lastTransitionTime` for as long as its status does. Where nothing changes, nothing is written.

use serde_json::{Map, Value};
use weft_proto::names::gateway_api::{CONDITION_PREFIX, CONTROLLER};

/// Most parents of a route (its definition's `maxItems`).
pub const PARENTS: usize = 32;
/// Most ancestors of a policy (its definition's `maxItems`).
pub const ANCESTORS: usize = 16;

/// The new `.status`; `None`: the one that is there says it already. `desired` is what weft has to say, its conditions without
/// `lastTransitionTime`; `observed` is what is there; `now` is a time as the API writes it.
pub fn merge(desired: &Value, observed: &Value, now: &str) -> Option<Value> {
    let empty = Map::new();
    let there = observed.as_object().unwrap_or(&empty);
    let desired = desired.as_object().unwrap_or(&empty);
    let mut status = Map::new();
    for (field, wanted) in desired {
        let old = there.get(field).unwrap_or(&Value::Null);
        let new = match field.as_str() {
            "conditions" => conditions(wanted, old, now),
            "listeners" => listeners(wanted, old, now),
            "parents" => entries(wanted, old, "parentRef", PARENTS, now),
            "ancestors" => entries(wanted, old, "ancestorRef", ANCESTORS, now),
            _ => wanted.clone(),
        };
        if !new.is_null() {
            status.insert(field.clone(), new);
        }
    }
    let status = Value::Object(status);
    (plain(&status) != plain(observed)).then_some(status)
}

/// The patch (RFC 7386) that turns one status into another.
pub fn patch(observed: &Value, status: &Value) -> Value {
    let mut patch = status.clone();
    let fields = observed.as_object().into_iter().flatten();
    for (field, _) in fields.filter(|(field, _)| status.get(*field).is_none()) {
        patch[field] = Value::Null;
    }
    patch
}

/// Without fields that are null or an empty list, which say what their absence says.
fn plain(value: &Value) -> Value {
    let says_nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !says_nothing(value));
            Value::Object(fields.map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Null => Value::Object(Map::new()),
        other => other.clone(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Ours in their places, new ones behind them; of those that are not desired only the ones that are somebody else's.
fn conditions(desired: &Value, observed: &Value, now: &str) -> Value {
    let mut left: Vec<&Value> = list(desired).iter().collect();
    let mut conditions = Vec::new();
    for old in list(observed) {
        match left.iter().position(|new| new["type"] == old["type"]) {
            Some(index) => conditions.push(condition(left.remove(index), Some(old), now)),
            None if is_foreign(old) => conditions.push(old.clone()),
            None => {}
        }
    }
    conditions.extend(left.into_iter().map(|new| condition(new, None, now)));
    conditions.into()
}

/// A type with a domain is of whoever has the domain; the others are the Gateway API's, and ours to set.
fn is_foreign(condition: &Value) -> bool {
    let kind = condition["type"].as_str().unwrap_or_default();
    kind.contains('/') && !kind.starts_with(CONDITION_PREFIX)
}

fn condition(new: &Value, old: Option<&Value>, now: &str) -> Value {
    let since = old.filter(|old| old["status"] == new["status"]);
    let since = since.and_then(|old| old["lastTransitionTime"].as_str());
    let mut condition = new.clone();
    condition["lastTransitionTime"] = since.unwrap_or(now).into();
    condition
}

fn with_conditions(new: &Value, old: Option<&Value>, now: &str) -> Value {
    let mut entry = new.clone();
    let there = old.map_or(&Value::Null, |old| &old["conditions"]);
    entry["conditions"] = conditions(&new["conditions"], there, now);
    entry
}

/// All of them are ours, in the order of the specification.
fn listeners(desired: &Value, observed: &Value, now: &str) -> Value {
    let old = |new: &Value| list(observed).iter().find(|old| old["name"] == new["name"]);
    let all = list(desired).iter();
    all.map(|new| with_conditions(new, old(new), now)).collect()
}

/// Entries of a reference and a controller: ours in their places, new ones behind them, those of others untouched.
fn entries(desired: &Value, observed: &Value, reference: &str, most: usize, now: &str) -> Value {
    let mut left: Vec<&Value> = list(desired).iter().collect();
    let mut entries = Vec::new();
    let is_ours = |entry: &Value| entry["controllerName"] == CONTROLLER;
    // A list that is full already takes no more of ours than there is room for beside those of others.
    let others = list(observed).iter().filter(|entry| !is_ours(entry)).count();
    left.truncate(most.saturating_sub(others));
    for old in list(observed) {
        if !is_ours(old) {
            entries.push(old.clone());
        } else if let Some(index) = left
            .iter()
            .position(|new| plain(&new[reference]) == plain(&old[reference]))
        {
            entries.push(with_conditions(left.remove(index), Some(old), now));
        }
    }
    entries.extend(left.into_iter().map(|new| with_conditions(new, None, now)));
    entries.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const THEN: &str = "2026-01-01T00:00:00Z";
    const NOW: &str = "2026-02-02T00:00:00Z";

    fn one(kind: &str, status: &str) -> Value {
        json!({"type": kind, "status": status, "reason": kind, "message": "", "observedGeneration": 1})
    }

    fn since(mut condition: Value, time: &str) -> Value {
        condition["lastTransitionTime"] = time.into();
        condition
    }

    fn parent(name: &str, controller: &str, conditions: &[Value]) -> Value {
        json!({"parentRef": {"name": name}, "controllerName": controller, "conditions": conditions})
    }

    #[test]
    fn a_condition_keeps_its_time_for_as_long_as_its_status() {
        let mut changed = one("Programmed", "True");
        changed["observedGeneration"] = 2.into();
        let desired = json!({"conditions": [one("Accepted", "True"), changed, one("ResolvedRefs", "True")]});
        let observed = json!({"conditions": [
            since(one("Accepted", "False"), THEN), since(one("Programmed", "True"), THEN), since(one("Gone", "True"), THEN),
        ]});
        let expected = json!({"conditions": [
            since(one("Accepted", "True"), NOW), since(changed, THEN), since(one("ResolvedRefs", "True"), NOW),
        ]});
        let new = merge(&desired, &observed, NOW).unwrap();
        assert_eq!(new, expected);
        assert_eq!(merge(&desired, &new, "later"), None, "nothing changes");
    }

    #[test]
    fn what_others_say_of_an_object_stays() {
        let foreign = since(one("example.com/Ready", "True"), THEN);
        let desired = json!({"conditions": [one("Accepted", "True")]});
        let observed = json!({"conditions": [foreign, since(one("weft.dev/Shadowed", "True"), THEN)]});
        let expected = json!({"conditions": [foreign, since(one("Accepted", "True"), NOW)]});
        assert_eq!(merge(&desired, &observed, NOW), Some(expected));
    }

    #[test]
    fn parents_of_other_controllers_stay_where_they_are() {
        let theirs = parent("a", "example.com/other", &[since(one("Accepted", "False"), THEN)]);
        let observed = json!({"parents": [
            parent("gone", CONTROLLER, &[]), parent("b", CONTROLLER, &[since(one("Accepted", "True"), THEN)]), theirs,
        ]});
        let desired = json!({"parents": [
            parent("a", CONTROLLER, &[one("Accepted", "True")]), parent("b", CONTROLLER, &[one("Accepted", "True")]),
        ]});
        let expected = json!({"parents": [
            parent("b", CONTROLLER, &[since(one("Accepted", "True"), THEN)]), theirs,
            parent("a", CONTROLLER, &[since(one("Accepted", "True"), NOW)]),
        ]});
        assert_eq!(merge(&desired, &observed, NOW), Some(expected));
        let none = merge(&json!({"parents": []}), &observed, NOW).unwrap();
        assert_eq!(none, json!({"parents": [theirs]}));
        assert_eq!(merge(&json!({"parents": []}), &none, NOW), None);
    }

    #[test]
    fn a_list_never_has_more_entries_than_its_definition_allows() {
        let theirs: Vec<Value> = (0..30)
            .map(|n| parent(&format!("t{n}"), "example.com/other", &[]))
            .collect();
        let ours: Vec<Value> = (0..5).map(|n| parent(&format!("o{n}"), CONTROLLER, &[])).collect();
        let new = merge(&json!({"parents": ours}), &json!({"parents": theirs}), NOW).unwrap();
        let parents = new["parents"].as_array().unwrap();
        assert_eq!(parents.len(), PARENTS);
        assert_eq!(parents[..30], theirs);
        assert_eq!(merge(&json!({"parents": ours}), &new, NOW), None);
    }

    #[test]
    fn listeners_follow_the_specification_and_keep_their_times() {
        let listener =
            |name: &str, condition: Value| json!({"name": name, "attachedRoutes": 1, "conditions": [condition]});
        let observed = json!({"addresses": [{"value": "192.0.2.1"}], "listeners": [
            listener("b", since(one("Programmed", "True"), THEN)), listener("a", since(one("Programmed", "True"), THEN)),
        ]});
        let desired = json!({"listeners": [listener("a", one("Programmed", "True"))]});
        let new = merge(&desired, &observed, NOW).unwrap();
        assert_eq!(
            new,
            json!({"listeners": [listener("a", since(one("Programmed", "True"), THEN))]})
        );
        assert_eq!(
            patch(&observed, &new),
            json!({"addresses": null, "listeners": new["listeners"]})
        );
    }

    #[test]
    fn what_says_nothing_is_no_change() {
        let desired = json!({"parents": [{"parentRef": {"name": "a", "port": null}, "controllerName": CONTROLLER, "conditions": []}]});
        let observed = json!({"parents": [{"parentRef": {"name": "a"}, "controllerName": CONTROLLER}]});
        assert_eq!(merge(&desired, &observed, NOW), None);
        assert_eq!(merge(&json!({"conditions": []}), &Value::Null, NOW), None);
    }
}
