//! The document that describes the API: built from the routes themselves, served as it was built.

use axum::Extension;
use axum::body::Bytes;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::problem::Problem;

const DESCRIPTION: &str = "Live news of long-running tests.\n\n\
    JSON in and out. Every error is `application/problem+json` (RFC 9457) with a stable `code`: beside those \
    that stand at each route, while authentication is on, `token_required`, `invalid_token`, `token_expired`, \
    `token_not_yet_valid` and `token_revoked` (401, with `WWW-Authenticate`), `user_blocked` and `forbidden` (403), and \
    `auth_unavailable` (503); `origin_not_allowed` (403) for pages of other origins; `not_found` (404) for a path and `method_not_allowed` (405, with `Allow`) for a \
    method that does not exist, `invalid_path` (400) for a name in the path that can be no name, and \
    `invalid_user` (400) for a header `X-User-Id` that names nobody. Times are in ms since the Unix epoch.";

const BEARER: &str = "bearer";

/// The document before any route is in it.
pub(super) fn introduction() -> OpenApi {
    let info = InfoBuilder::new()
        .title("tidings")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .build();
    // The responses that many routes share name this schema without handing it in.
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("Needed while authentication is on, but for `/`, `/healthz` and `/readyz`."))
        .build();
    let components = ComponentsBuilder::new()
        .schema(Problem::name(), Problem::schema())
        .security_scheme(BEARER, SecurityScheme::Http(bearer))
        .build();
    // Either of the two: without a key nobody asks for a token.
    let security = [SecurityRequirement::new(BEARER, [""; 0]), SecurityRequirement::default()];
    OpenApiBuilder::new().info(info).components(Some(components)).security(Some(security)).build()
}

/// The finished document.
#[derive(Clone)]
pub(super) struct Document(Bytes);

impl Document {
    pub(super) fn of(api: &OpenApi) -> Self {
        Self(Bytes::from(serde_json::to_vec(api).expect("the document is plain data with text for keys")))
    }
}

/// This document.
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    operation_id = "openapi",
    tag = "server",
    responses((status = 200, description = "The OpenAPI 3.1 document of this server", body = Object))
)]
pub(super) async fn document(Extension(Document(bytes)): Extension<Document>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], bytes)
}
