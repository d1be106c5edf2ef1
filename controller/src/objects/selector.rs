//! `LabelSelector` of meta/v1.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Conditions on labels, all of which must hold. Without any it holds for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels with their values.
    pub match_labels: BTreeMap<String, String>,
    /// Other conditions.
    pub match_expressions: Vec<Requirement>,
}

/// A condition on one label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// For `In` and `NotIn`.
    pub values: Vec<String>,
}

impl LabelSelector {
    /// Whether labels fulfil all conditions. One with an unknown operator is not fulfilled.
    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(name, value): (&String, &String)| labels.get(name) == Some(value);
        self.match_labels.iter().all(has) && self.match_expressions.iter().all(|one| one.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator.as_str() {
            "In" => value.is_some_and(|value| self.values.contains(value)),
            "NotIn" => value.is_none_or(|value| !self.values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_holds_where_all_of_its_conditions_do() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let holds = |text: &str| serde_saphyr::from_str::<LabelSelector>(text).unwrap().holds(&labels);
        assert!(holds("{}"));
        assert!(holds("{matchLabels: {a: '1'}}"));
        assert!(!holds("{matchLabels: {a: '1', b: '1'}}"));
        for (condition, expected) in [
            ("{key: a, operator: In, values: ['1', '2']}", true),
            ("{key: a, operator: NotIn, values: ['1']}", false),
            ("{key: b, operator: NotIn, values: ['1']}", true),
            ("{key: a, operator: Exists}", true),
            ("{key: b, operator: Exists}", false),
            ("{key: b, operator: DoesNotExist}", true),
            ("{key: a, operator: Like, values: ['1']}", false),
        ] {
            assert_eq!(
                holds(&format!("{{matchExpressions: [{condition}]}}")),
                expected,
                "{condition}"
            );
        }
    }
}
