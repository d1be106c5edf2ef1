//! Tokens that prove something, and those that do not.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{EncodingKey, Header};
use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::*;

fn public_pem(pair: &KeyPair) -> String {
    pair.public_key_pem()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({
        "iss": "weft-sandbox", "aud": ["weft-ca"], "sub": "system:serviceaccount:shop:cart", "exp": now() + 600,
        "kubernetes.io": {
            "namespace": "shop",
            "pod": {"name": "cart-1", "uid": "u-1"},
            "serviceaccount": {"name": "cart", "uid": "s-1"},
        },
    })
}

fn token(pair: &KeyPair, claims: &Value) -> String {
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &key).unwrap()
}

#[tokio::test]
async fn a_good_token_says_who_its_pod_is() {
    let pair = KeyPair::generate().unwrap();
    let tokens = SandboxTokens::new(public_pem(&pair).as_bytes()).unwrap();
    let claim = tokens.check(&format!("{}\n", token(&pair, &claims()))).await.unwrap();
    let text = |text: &str| text.to_owned();
    let expected = Claim {
        namespace: text("shop"),
        service_account: text("cart"),
        pod_name: text("cart-1"),
        pod_uid: text("u-1"),
    };
    assert_eq!(claim, expected);
}

#[tokio::test]
async fn t53_a_token_for_another_audience_or_past_its_end_or_of_another_key_is_refused() {
    let (pair, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let tokens = SandboxTokens::new(public_pem(&pair).as_bytes()).unwrap();
    type Change = (&'static str, fn(&mut Value));
    let changes: [Change; 12] = [
        ("another audience", |c| {
            c["aud"] = json!(["https://kubernetes.default.svc"])
        }),
        ("no audience", |c| drop(c.as_object_mut().unwrap().remove("aud"))),
        ("an empty audience", |c| c["aud"] = json!([])),
        ("expired", |c| c["exp"] = json!(now() - 30)),
        ("no end", |c| drop(c.as_object_mut().unwrap().remove("exp"))),
        ("not yet valid", |c| c["nbf"] = json!(now() + 300)),
        ("another issuer", |c| c["iss"] = json!("https://evil.example")),
        ("a user's", |c| c["sub"] = json!("admin")),
        ("someone else's subject", |c| {
            c["sub"] = json!("system:serviceaccount:shop:admin")
        }),
        ("another namespace inside", |c| {
            c["kubernetes.io"]["namespace"] = json!("bank")
        }),
        ("not bound to a pod", |c| c["kubernetes.io"]["pod"]["uid"] = json!("")),
        ("no claim of Kubernetes", |c| {
            drop(c.as_object_mut().unwrap().remove("kubernetes.io"))
        }),
    ];
    for (what, change) in changes {
        let mut claims = claims();
        change(&mut claims);
        let result = tokens.check(&token(&pair, &claims)).await;
        assert!(matches!(result, Err(Refused::Token(_))), "{what}: {result:?}");
    }
    assert!(tokens.check(&token(&other, &claims())).await.is_err(), "another key");
    assert!(tokens.check("").await.is_err());
    // The key of the signature is the public key: a classic confusion of algorithms.
    let confused = EncodingKey::from_secret(public_pem(&pair).as_bytes());
    let confused = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &confused).unwrap();
    assert!(tokens.check(&confused).await.is_err());
    let parts: Vec<String> = token(&pair, &claims()).split('.').map(str::to_owned).collect();
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", parts[1]);
    assert!(tokens.check(&none).await.is_err(), "no signature");
}

#[test]
fn a_key_that_is_none_is_refused() {
    assert!(SandboxTokens::new(b"no key").err().unwrap().contains("EC public key"));
}

fn review(change: impl FnOnce(&mut TokenReviewStatus)) -> Result<Claim, Refused> {
    let field = |field: &str, value: &str| {
        (
            format!("authentication.kubernetes.io/pod-{field}"),
            vec![value.to_owned()],
        )
    };
    let mut status = TokenReviewStatus {
        authenticated: Some(true),
        audiences: Some(vec!["weft-ca".into()]),
        user: Some(UserInfo {
            username: Some("system:serviceaccount:shop:cart".into()),
            extra: Some(BTreeMap::from([field("name", "cart-1"), field("uid", "u-1")])),
            ..UserInfo::default()
        }),
        ..TokenReviewStatus::default()
    };
    change(&mut status);
    claim_of(TokenReview {
        status: Some(status),
        ..TokenReview::default()
    })
}

#[test]
fn t53_a_review_counts_only_with_our_audience_and_a_pod() {
    assert_eq!(review(|_| {}).unwrap().pod_uid, "u-1");
    assert!(review(|status| status.authenticated = Some(false)).is_err());
    assert!(review(|status| status.authenticated = None).is_err());
    let error = review(|status| status.audiences = None).unwrap_err().to_string();
    assert!(
        error.contains("audience"),
        "an API server that knows no audiences: {error}"
    );
    assert!(review(|status| status.audiences = Some(vec!["api".into()])).is_err());
    assert!(review(|status| status.user.as_mut().unwrap().extra = None).is_err());
    assert!(review(|status| status.user.as_mut().unwrap().username = Some("admin".into())).is_err());
    assert!(claim_of(TokenReview::default()).is_err());
}
