//! Keys of every kind, and tokens that try to choose another one.

use std::path::Path;

use serde_json::{Value, json};
use tidings::auth::mint::Signer;
use tidings::config::secret::Secret;

use super::forge::{ann, crafted, jwk, private_key, public_pem, signed};
use super::{Site, code, http};

#[tokio::test]
async fn a_public_key_of_each_kind_believes_its_own_tokens_and_no_others() {
    let keys: Vec<(&str, Vec<u8>)> = ["rsa", "ec", "ed"].map(|kind| (kind, private_key(kind))).into();
    for (kind, own) in &keys {
        let site = Site::new("[auth]\npublic_key_file = \"key.pem\"\n");
        let pem = public_pem(own);
        std::fs::write(site.path("key.pem"), &pem).expect("written");
        let server = site.start();
        let ask = async |token: &str| http(&server, token).get::<Value>("/api/v1/stats").await;
        ask(&signed(own)).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
        for (_, other) in keys.iter().filter(|(other, _)| other != kind) {
            assert_eq!(code(ask(&signed(other)).await), "invalid_token", "{kind}");
        }
        assert_eq!(code(ask(&signed(&private_key(kind))).await), "invalid_token", "{kind}: another key");
        // The public key as a secret: anybody has it.
        let confused =
            Signer::secret(&Secret::new(std::str::from_utf8(&pem).expect("text"))).expect("a secret");
        assert_eq!(
            code(ask(&confused.sign(&ann()).expect("signed")).await),
            "invalid_token",
            "{kind}: confusion"
        );
        for none in ["none", "None", "NONE", "HS256", "RS256", "ES256", "EdDSA", "ES384", "PS256"] {
            let token = crafted(&json!({ "alg": none, "typ": "JWT" }), "");
            assert_eq!(code(ask(&token).await), "invalid_token", "{kind}: {none} without a signature");
        }
        let own_jwk = jwk(own, kind, "x");
        let token = crafted(&json!({ "alg": "RS256", "jwk": own_jwk, "jku": "http://127.0.0.1:1/" }), "AAAA");
        assert_eq!(code(ask(&token).await), "invalid_token", "{kind}: a token brings no key");
        let huge = crafted(&json!({ "alg": "RS256", "x": "x".repeat(9000) }), "AAAA");
        assert_eq!(code(ask(&huge).await), "invalid_token", "{kind}: huge");
    }
}

#[test]
fn a_key_that_cannot_be_used_is_told_of_with_its_place() {
    let refused = |name: &str, text: &[u8], key: &str| {
        let site = Site::new(&format!("[auth]\n{key} = \"{name}\"\n"));
        if !text.is_empty() {
            std::fs::write(site.path(name), text).expect("written");
        }
        let output = site.command(&["serve", "--listen", "127.0.0.1:0"]).output().expect("it ran");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        let mut check = super::super::tidings(&["check"]);
        let checked = check.arg("--config").arg(site.path("tidings.toml")).output().expect("it ran");
        assert_eq!(checked.status.code(), Some(64), "check sees it too");
        said
    };
    let private = private_key("ec");
    for (name, text, key, part) in [
        ("none.pem", b"".to_vec(), "public_key_file", "none.pem cannot be read"),
        ("text.pem", b"hello".to_vec(), "public_key_file", "expected one public key"),
        ("private.pem", private, "public_key_file", "this is a private key"),
        ("p384.pem", public_pem(&private_key("p384")), "public_key_file", "P-256"),
        ("set.json", b"{\"keys\":[]}".to_vec(), "jwks_file", "it is empty"),
        (
            "secret.json",
            b"{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}".to_vec(),
            "jwks_file",
            "belong into auth.hs256_secret",
        ),
    ] {
        let said = refused(name, &text, key);
        assert!(said.contains(part) && said.contains(&format!("auth.{key}")), "{said}");
        assert!(!said.contains("AAAA"), "{said}");
    }
}

#[tokio::test]
async fn a_set_in_a_file_works_like_one_of_a_provider() {
    let (one, two) = (private_key("ec"), private_key("ed"));
    let site = Site::new(
        "[auth]\njwks_file = \"keys.json\"\nissuer = \"https://id.example.org\"\naudience = \"tidings\"\n",
    );
    let other = json!({ "kty": "RSA", "use": "enc", "kid": "one", "n": "AQAB", "e": "AQAB" });
    write(
        &site.path("keys.json"),
        &json!({ "keys": [other, jwk(&one, "ec", "one"), jwk(&two, "ed", "two")] }),
    );
    let server = site.start();
    let ask = async |claims: Value| {
        let token = Signer::pem(&one)
            .expect("a key")
            .with_key_id("one")
            .sign(&super::claims(claims))
            .expect("signed");
        http(&server, &token).get::<Value>("/api/v1/stats").await
    };
    let good = json!({ "iss": "https://id.example.org", "aud": ["other", "tidings"] });
    ask(good.clone()).await.expect("believed");
    let now = tidings::model::now_ms() / 1000;
    for (wrong, expected) in [
        (json!({ "iss": "https://evil.example" }), "invalid_token"),
        (json!({ "iss": null }), "invalid_token"),
        (json!({ "aud": "other" }), "invalid_token"),
        (json!({ "aud": null }), "invalid_token"),
        (json!({ "aud": 7 }), "invalid_token"),
        (json!({ "exp": null }), "invalid_token"),
        (json!({ "exp": "tomorrow" }), "invalid_token"),
        (json!({ "exp": -1 }), "invalid_token"),
        (json!({ "exp": now - 60 }), "token_expired"),
        (json!({ "nbf": now + 120 }), "token_not_yet_valid"),
        (json!({ "nbf": "later" }), "invalid_token"),
        (json!({ "sub": "a b" }), "invalid_token"),
    ] {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").extend(wrong.as_object().expect("an object").clone());
        assert_eq!(code(ask(claims).await), expected, "{wrong}");
    }
    let within =
        json!({ "iss": "https://id.example.org", "aud": "tidings", "exp": now - 10, "nbf": now + 10 });
    ask(within).await.expect("within the leeway");
}

fn write(path: &Path, set: &Value) {
    std::fs::write(path, set.to_string()).expect("written");
}
