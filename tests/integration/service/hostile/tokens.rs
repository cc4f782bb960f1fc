//! Tokens that are not to be believed, by every way on which a token may come, against a server with keys.
//!
//! The server has an RSA key, whose public half anybody knows, and a secret; the table tries to have the one taken for
//! the other. The answers are those of `docs/security.md`.

use serde_json::{Value, json};
use tidings::auth::mint::Signer;
use tidings::config::secret::Secret;
use tidings::model::now_ms;

use super::super::auth::forge::{base64url, crafted, forged, jwk, named, private_key, public_pem};
use super::Answer::{Ends, Says, Status};
use super::Attack::{Frames, Opened, Raw};
use super::raw::{request, text};
use super::{Answer, Row};

pub(super) const SECRET: &str = "the secret of the hostile table, which is long enough";
const ISSUER: &str = "https://id.example.org";
const AUDIENCE: &str = "tidings";
/// The name of the RSA key.
const KEY: &str = "rsa-1";
/// The user that is shut out, and the token that was taken back.
pub(super) const BLOCKED: &str = "mallory";
pub(super) const REVOKED: &str = "stolen";

/// What the server with keys knows, and what an attacker has.
pub(super) struct Forge {
    private: Vec<u8>,
    other: Vec<u8>,
}

impl Forge {
    pub(super) fn new() -> Self {
        Self { private: private_key("rsa"), other: private_key("rsa") }
    }

    /// `[auth]` of the server; its set of keys is beside, as `keys.json`.
    pub(super) fn config() -> String {
        format!(
            "[auth]\nhs256_secret = \"{SECRET}\"\njwks_file = \"keys.json\"\nissuer = \"{ISSUER}\"\n\
             audience = \"{AUDIENCE}\"\nleeway = \"0s\"\n"
        )
    }

    pub(super) fn keys(&self) -> String {
        json!({ "keys": [jwk(&self.private, "rsa", KEY)] }).to_string()
    }

    /// A token that is to be believed, of `user` with `roles`.
    pub(super) fn sound(&self, user: &str, roles: &[&str]) -> String {
        self.signed(&claims(&json!({ "sub": user, "roles": roles })))
    }

    fn signed(&self, claims: &Value) -> String {
        self.under(&json!({ "alg": "RS256", "kid": KEY }), claims)
    }

    /// A token with this head, signed by the right key.
    fn under(&self, head: &Value, claims: &Value) -> String {
        forged(&self.private, &head.to_string(), claims)
    }

    /// The tokens, each with the code of its refusal, which is `ok` for those that are sound.
    fn tokens(&self) -> Vec<(&'static str, String, &'static str)> {
        [self.of_wrong_algorithms(), self.of_wrong_keys(), self.of_wrong_claims(), self.of_wrong_shape()]
            .concat()
    }

    fn of_wrong_algorithms(&self) -> Vec<(&'static str, String, &'static str)> {
        let no = "invalid_token";
        let pem = String::from_utf8(public_pem(&self.private)).expect("text");
        let all = claims(&json!({ "sub": "ann" }));
        let by = |secret: &str, id: Option<&str>| {
            let signer = Signer::secret(&Secret::new(secret)).expect("a secret");
            let signer = id.into_iter().fold(signer, Signer::with_key_id);
            signer.sign(all.as_object().expect("an object")).expect("signed")
        };
        let unsigned = |algorithm: &str| crafted(&json!({ "alg": algorithm, "kid": KEY }), "");
        vec![
            ("a sound token of RSA", self.signed(&all), "ok"),
            ("a sound token of the secret", by(SECRET, None), "ok"),
            ("alg none", unsigned("none"), no),
            ("alg None", unsigned("None"), no),
            ("alg nOnE", unsigned("nOnE"), no),
            ("no alg", crafted(&json!({ "kid": KEY }), ""), no),
            ("alg none and a sound signature", self.under(&json!({ "alg": "none" }), &all), no),
            ("an empty signature of RS256", unsigned("RS256"), no),
            ("an empty signature of HS256", crafted(&json!({ "alg": "HS256" }), ""), no),
            ("the public key as a secret", by(&pem, None), no),
            ("the public key as a secret, without its last line break", by(pem.trim(), None), no),
            ("the public key as a secret, by its name", by(&pem, Some(KEY)), no),
            ("the set of keys as a secret", by(&self.keys(), None), no),
            ("an empty secret", crafted(&json!({ "alg": "HS256" }), &base64url(&[0; 32])), no),
            ("a secret that is guessed", by("secret", None), no),
            ("RS256 called HS256", self.under(&json!({ "alg": "HS256" }), &all), no),
            ("RS256 called RS384", self.under(&json!({ "alg": "RS384", "kid": KEY }), &all), no),
            ("RS256 called PS256", self.under(&json!({ "alg": "PS256", "kid": KEY }), &all), no),
            ("two algorithms", forged(&self.private, "{\"alg\":\"none\",\"alg\":\"RS256\"}", &all), no),
            (
                "an extension that has to be understood",
                self.under(&json!({ "alg": "RS256", "crit": ["x"], "x": 1 }), &all),
                no,
            ),
            (
                "claims that are not encoded",
                self.under(&json!({ "alg": "RS256", "crit": ["b64"], "b64": false }), &all),
                no,
            ),
        ]
    }

    fn of_wrong_keys(&self) -> Vec<(&'static str, String, &'static str)> {
        let no = "invalid_token";
        let all = claims(&json!({ "sub": "ann", "roles": ["admin"] }));
        let own = jwk(&self.other, "rsa", KEY);
        let brings = |head: Value| forged(&self.other, &head.to_string(), &all);
        let is_named = |id: &str| self.under(&json!({ "alg": "RS256", "kid": id }), &all);
        vec![
            ("another key of the same name", named(&self.other, KEY), no),
            ("a key that the token brings", brings(json!({ "alg": "RS256", "kid": KEY, "jwk": own })), no),
            (
                "a key that the token has fetched",
                brings(json!({ "alg": "RS256", "kid": KEY, "jku": "http://127.0.0.1:1/keys" })),
                no,
            ),
            (
                "certificates that the token has fetched",
                brings(json!({ "alg": "RS256", "kid": KEY, "x5u": "http://127.0.0.1:1/" })),
                no,
            ),
            ("a key that nobody knows", is_named("rsa-2"), no),
            ("a key of no name", is_named(""), no),
            ("a key that is a file", is_named("../../../../dev/null"), no),
            ("a key that is a question to a database", is_named("x' UNION SELECT 'secret' --"), no),
            ("a key whose name is a number", self.under(&json!({ "alg": "RS256", "kid": 1 }), &all), no),
        ]
    }

    fn of_wrong_claims(&self) -> Vec<(&'static str, String, &'static str)> {
        let no = "invalid_token";
        let now = now_ms() / 1000;
        let with = |more: Value| self.signed(&claims(&more));
        vec![
            ("expired", with(json!({ "exp": now - 1 })), "token_expired"),
            ("expired long ago", with(json!({ "exp": 1 })), "token_expired"),
            ("without an end", with(json!({ "exp": null })), no),
            ("with an end before all time", with(json!({ "exp": -1 })), no),
            ("with an end that is a text", with(json!({ "exp": "9999999999" })), no),
            ("not yet valid", with(json!({ "nbf": now + 3600 })), "token_not_yet_valid"),
            ("valid from a text on", with(json!({ "nbf": "now" })), no),
            ("for another audience", with(json!({ "aud": "another" })), no),
            ("for an audience in other letters", with(json!({ "aud": "Tidings" })), no),
            ("for nobody", with(json!({ "aud": null })), no),
            ("for a list of nobody", with(json!({ "aud": [] })), no),
            ("from another issuer", with(json!({ "iss": "https://evil.example" })), no),
            ("from an issuer with more behind", with(json!({ "iss": format!("{ISSUER}.evil.example") })), no),
            ("from nobody", with(json!({ "iss": null })), no),
            ("of a user that is no name", with(json!({ "sub": "ann\r\nX-User-Id: root" })), no),
            ("of a user that is a number", with(json!({ "sub": 7 })), no),
            ("with roles that are an object", with(json!({ "roles": { "admin": true } })), no),
            ("with rights in no channel", with(json!({ "channels": { "a*b": ["join"] } })), no),
            ("of a user that is blocked", with(json!({ "sub": BLOCKED })), "user_blocked"),
            ("that was taken back", with(json!({ "jti": REVOKED })), "token_revoked"),
            ("whose claims are a list", self.signed(&json!([1])), no),
        ]
    }

    fn of_wrong_shape(&self) -> Vec<(&'static str, String, &'static str)> {
        let no = "invalid_token";
        let sound = self.sound("ann", &[]);
        let (head, rest) = sound.split_once('.').expect("three parts");
        let (body, signature) = rest.split_once('.').expect("three parts");
        let admin = base64url(claims(&json!({ "sub": "ann", "roles": ["admin"] })).to_string().as_bytes());
        let deep = format!("{{\"alg\":\"RS256\",\"x\":{}{}}}", "[".repeat(1500), "]".repeat(1500));
        vec![
            ("truncated by a letter", sound[..sound.len() - 1].to_owned(), no),
            ("truncated to a half", sound[..sound.len() / 2].to_owned(), no),
            ("without a signature", format!("{head}.{body}."), no),
            ("without a signature and its dot", format!("{head}.{body}"), no),
            ("without claims", format!("{head}..{signature}"), no),
            ("without a head", format!(".{body}.{signature}"), no),
            ("dots", "..".to_owned(), no),
            ("one letter", "x".to_owned(), no),
            ("with other claims", format!("{head}.{admin}.{signature}"), no),
            ("with a part behind", format!("{sound}.{signature}"), no),
            ("five parts, as if encrypted", format!("{head}.{body}.{signature}.{body}.{signature}"), no),
            ("padded", format!("{sound}="), no),
            ("in letters of the usual base64", format!("{head}.{body}.{}", "+/".repeat(171)), no),
            ("twice, with a comma", format!("{sound},{sound}"), no),
            ("with a header behind, escaped", format!("{sound}%0d%0aX-User-Id:%20root"), no),
            ("deep", format!("{}.{body}.{signature}", base64url(deep.as_bytes())), no),
            ("huge", format!("{head}.{}.{signature}", "A".repeat(9000)), no),
        ]
    }
}

/// Claims that hold for the length of the test, and `more`; `null` leaves one out.
fn claims(more: &Value) -> Value {
    let mut claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": now_ms() / 1000 + 600 });
    let all = claims.as_object_mut().expect("an object");
    all.extend(more.as_object().expect("an object").clone());
    all.retain(|_, value| !value.is_null());
    claims
}

/// A way on which a token comes, and what is answered to one with this code.
struct Way {
    name: &'static str,
    attack: fn(&str) -> super::Attack,
    answer: fn(&'static str) -> Answer,
}

const WAYS: [Way; 7] = [
    Way { name: "a header", attack: |token| in_header("/api/v1/stats", token), answer: http_answer },
    Way { name: "a query", attack: |token| in_query("/api/v1/stats", token), answer: http_answer },
    Way {
        name: "a stream's query",
        attack: |token| in_query("/api/v1/channels/story-quiet/stream", token),
        answer: |code| if code == "ok" { Status(200, "text/event-stream") } else { http_answer(code) },
    },
    Way {
        name: "a handshake",
        attack: |token| Opened {
            query: String::new(),
            headers: String::new(),
            frames: text(&format!("40{}", json!({ "token": token }))),
        },
        answer: socket_answer,
    },
    Way {
        name: "a WebSocket's header",
        attack: |token| Opened {
            query: String::new(),
            headers: format!("authorization: Bearer {token}\r\n"),
            frames: text("40"),
        },
        answer: socket_answer,
    },
    Way {
        name: "a WebSocket's query",
        attack: |token| Opened {
            query: format!("&token={token}"),
            headers: String::new(),
            frames: text("40"),
        },
        answer: socket_answer,
    },
    Way {
        name: "a refresh",
        attack: |token| Frames(text(&format!("421{}", json!(["auth:refresh", { "token": token }])))),
        answer: |code| match code {
            "ok" => Says("\"ok\":true"),
            // A refused token leaves the one before in force.
            code => Says(said("431[{\"error\":{\"code\":\"", code)),
        },
    },
];

fn in_header(path: &str, token: &str) -> super::Attack {
    Raw(request(&format!("GET {path}"), &format!("authorization: Bearer {token}\r\n"), ""))
}

fn in_query(path: &str, token: &str) -> super::Attack {
    Raw(request(&format!("GET {path}?token={token}"), "", ""))
}

fn http_answer(code: &'static str) -> Answer {
    match code {
        "ok" => Status(200, ""),
        "user_blocked" => Status(403, code),
        code => Status(401, code),
    }
}

fn socket_answer(code: &'static str) -> Answer {
    match code {
        "ok" => Says("connection:established"),
        code => Says(said("44{\"message\":\"{\\\"code\\\":\\\"", code)),
    }
}

/// Rows name what is expected for as long as the test runs.
fn said(before: &str, code: &str) -> &'static str {
    String::leak(format!("{before}{code}"))
}

/// Every token by every way, and what only one way can bring.
pub(super) fn rows(forge: &Forge) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, token, code) in forge.tokens() {
        for way in &WAYS {
            let name: &'static str = String::leak(format!("{name}, in {}", way.name));
            rows.push(Row { name, attack: (way.attack)(&token), answer: (way.answer)(code) });
        }
    }
    rows.extend(of_one_way(forge));
    rows
}

fn of_one_way(forge: &Forge) -> Vec<Row> {
    let (ann, admin) = (forge.sound("ann", &[]), forge.sound("root", &["admin"]));
    let stats = |headers: &str| Raw(request("GET /api/v1/stats", headers, ""));
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let shake = |auth: &str| Opened {
        query: String::new(),
        headers: String::new(),
        frames: text(&format!("40{auth}")),
    };
    let (required, invalid) = (Status(401, "token_required"), Status(401, "invalid_token"));
    let cells: Vec<(&'static str, super::Attack, Answer)> = vec![
        ("no token", stats(""), required),
        ("a scheme alone", stats("authorization: Bearer\r\n"), required),
        ("another scheme", stats("authorization: Basic YTpi\r\n"), required),
        ("another scheme with a token", stats(&format!("authorization: Token {ann}\r\n")), required),
        ("a token without a scheme", stats(&format!("authorization: {ann}\r\n")), required),
        ("a token in a cookie", stats(&format!("cookie: token={ann}\r\n")), required),
        ("a token under another name", Raw(request(&format!("GET /api/v1/stats?access_token={ann}"), "", "")), required),
        ("a token under an escaped name", Raw(request(&format!("GET /api/v1/stats?%74oken={ann}"), "", "")), required),
        ("letters of no alphabet", Raw([b"GET /api/v1/stats HTTP/1.1\r\nhost: t\r\nconnection: close\r\nauthorization: Bearer \xff\xfe.\xff.\xff\r\n\r\n".as_slice()].concat()), required),
        ("two tokens with a space", stats(&bearer(&format!("{ann} {admin}"))), invalid),
        ("two headers with tokens", stats(&format!("{}{}", bearer(&ann), bearer(&admin))), invalid),
        ("two headers with the same token", stats(&format!("{}{}", bearer(&ann), bearer(&ann))), invalid),
        ("two tokens in a query", Raw(request(&format!("GET /api/v1/stats?token={ann}&token={admin}"), "", "")), invalid),
        (
            "a bad token in a header and a sound one in a query",
            Raw(request(&format!("GET /api/v1/stats?token={ann}"), &bearer("x"), "")),
            invalid,
        ),
        ("a token folded over two lines", stats(&format!("authorization: Bearer {}\r\n {}\r\n", &ann[..50], &ann[50..])), Status(400, "")),
        ("a token with a NUL", stats(&bearer(&format!("{ann}\0"))), Status(400, "")),
        ("a token with a bare line break", stats(&bearer(&format!("x\rX-User-Id: root.{ann}"))), Status(400, "")),
        ("a token that is larger than a head", stats(&bearer(&"A".repeat(100_000))), Status(431, "")),
        ("a token that is larger than a line", Raw(request(&format!("GET /api/v1/stats?token={}", "A".repeat(100_000)), "", "")), Status(431, "")),
        (
            "a user's name beside a token",
            Raw(request("POST /api/v1/users/bob/block", &format!("{}x-user-id: root\r\n", bearer(&ann)), "")),
            Status(403, "forbidden"),
        ),
        ("no token in a handshake", shake(""), Says("token_required")),
        ("nothing as a token", shake("{\"token\":null}"), Says("token_required")),
        ("an empty token", shake("{\"token\":\"\"}"), Says("invalid_token")),
        ("a number as a token", shake("{\"token\":7}"), Says("invalid_handshake")),
        ("a list of tokens", shake(&json!({ "token": [&ann] }).to_string()), Says("invalid_handshake")),
        ("a token that is larger than a packet", shake(&json!({ "token": "A".repeat(100_000) }).to_string()), Ends),
        ("a user's name in a handshake without a token", shake("{\"userId\":\"root\"}"), Says("token_required")),
        ("the token of another user in a refresh", Frames(text(&format!("421{}", json!(["auth:refresh", { "token": admin }])))), Says("other_user")),
        ("a refresh without a token", Frames(text("421[\"auth:refresh\",{}]")), Says("\"code\":\"invalid\"")),
        ("a refresh with a number", Frames(text("421[\"auth:refresh\",{\"token\":7}]")), Says("\"code\":\"invalid\"")),
    ];
    let row = |(name, attack, answer)| Row { name, attack, answer };
    cells.into_iter().map(row).collect()
}
