//! The description of the API (OpenAPI 3.1): paths from the table of routes, schemas kept by hand in `schemas.json`.

use super::{problem::KINDS, routes};
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// The schemas, kept beside the types that they describe; a test compares the two.
const SCHEMAS: &str = include_str!("schemas.json");

/// The document as JSON text.
pub fn document() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| build().to_string())
}

fn build() -> Value {
    let mut paths = Map::new();
    for route in routes::routes() {
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method.to_lowercase()] = operation(route);
    }
    let mut components: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    let codes: Vec<_> = KINDS.iter().map(|kind| kind.code).collect();
    components["schemas"]["Problem"]["properties"]["code"]["enum"] = json!(codes);
    components["securitySchemes"] = json!({"token": {"type": "http", "scheme": "bearer"}});
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Millpond",
            "version": "1",
            "description": "Durable jobs over HTTP. Refusals are application/problem+json with a stable code.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"}
        },
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": components
    })
}

fn operation(route: &routes::Route) -> Value {
    let segments = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = segments
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = route.query.iter().map(|name| {
        let kind = if *name == "limit" { "integer" } else { "string" };
        json!({"name": name, "in": "query", "schema": {"type": kind}})
    });
    let mut parameters: Vec<_> = in_path.chain(in_query).collect();
    if route.method != "GET" {
        for name in ["IdempotencyKey", "Durability", "Actor"] {
            parameters.push(json!({"$ref": format!("#/components/parameters/{name}")}));
        }
    }
    let content_type = match route.path {
        "/metrics" => "text/plain",
        "/v1/events" => "text/event-stream",
        _ => "application/json",
    };
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "parameters": parameters,
        "responses": {
            route.status.to_string(): {"description": "done", "content": {content_type: {}}},
            "default": {
                "description": "refused; nothing was changed unless the code is unknown_outcome",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
            }
        }
    });
    if !route.request.is_empty() {
        let schema = json!({"schema": {"$ref": format!("#/components/schemas/{}", route.request)}});
        operation["requestBody"] = json!({"content": {"application/json": schema}});
    }
    operation
}

/// `POST /v1/queues/{queue}/jobs` is `post_queues_queue_jobs`.
fn operation_id(route: &routes::Route) -> String {
    let words = route.path.split('/').filter(|part| !part.is_empty() && *part != "v1");
    let words = words.map(|part| part.trim_matches(['{', '}']).replace('.', "_"));
    std::iter::once(route.method.to_lowercase()).chain(words).collect::<Vec<_>>().join("_")
}
