//! The types of `clients/js`: written from the Rust definitions, so that they stand in one place only.
//!
//! `TIDINGS_WRITE=1 cargo test --test integration typescript` writes the committed file anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value};
use tidings::config::channels::{Namespace, Rules};
use tidings::fanout::{JoinAck, Reset};
use tidings::model::Position;
use tidings::model::test::TestData;
use tidings::queue::events::{JobData, PauseData};
use tidings::socket::Greeting;
use utoipa::ToSchema;

const FILE: &str = "clients/js/src/types.ts";
const HEAD: &str = "\
// Written from the Rust definitions by tests/integration/typescript.rs; do not edit.
// To write it anew: TIDINGS_WRITE=1 cargo test --test integration typescript
";

/// What each event says, beside what it says of a test or a job in any case.
const EVENTS: [(&str, &str); 24] = [
    ("test:started", "Test<'testType' | 'startedAt'>"),
    ("test:progress", "Test<'progress'>"),
    ("test:log", "Test<'firstLine' | 'lines'>"),
    ("test:completed", "Test<'completedAt' | 'durationMs'>"),
    ("test:failed", "Test<'error'>"),
    ("test:cancelled", "Test<'reason'>"),
    ("queue:job:added", "JobData"),
    ("queue:job:started", "JobData"),
    ("queue:job:progress", "JobData"),
    ("queue:job:completed", "JobData"),
    ("queue:job:failed", "JobData"),
    ("queue:job:cancelled", "JobData"),
    ("queue:job:retrying", "JobData"),
    ("queue:job:updated", "JobData"),
    ("queue:paused", "PauseData"),
    ("queue:resumed", "PauseData"),
    ("system:alert", "Alert"),
    ("system:maintenance:start", "Alert"),
    ("system:maintenance:end", "Alert"),
    ("user:notification", "MessageToUser"),
    ("user:notification:recalled", "{ messageId: MessageId }"),
    ("user:notification:read", "{ messageIds: MessageId[]; readAt: number }"),
    ("user:online", "UserOnline"),
    ("user:offline", "UserOnline"),
];
/// The parts that no definition of the server has, because it does not read them.
const REST: &str = "\
/** What the server tells of a test; fields that no rule needs pass through. */
export type Test<Told extends keyof TestFields = never> = TestFields & Required<Pick<TestFields, 'testId' | 'attempt' | Told>>;

/** `TestData`, and what the server passes on unread. */
export interface TestFields extends TestData {
  /** How it ended: `passed`. */
  status?: string;
  durationMs?: number;
  /** The number of the first of `lines`, from 1; a jump shows lines that were left out. */
  firstLine?: number;
  lines?: string[];
  reason?: string;
  cancelledBy?: UserId;
  workerId?: WorkerId;
  url?: string;
}

/** What everybody should know. */
export interface Alert {
  level?: string;
  message?: string;
  [more: string]: unknown;
}
";

#[test]
fn the_committed_types_are_those_of_the_server() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let wanted = types();
    if std::env::var_os("TIDINGS_WRITE").is_some() {
        std::fs::write(&file, &wanted).expect("the file can be written");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = committed.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    assert!(
        committed == wanted,
        "{FILE} is not what the server's definitions give (line {:?}): write it anew with \
         TIDINGS_WRITE=1 cargo test --test integration typescript",
        differs.map(|at| at + 1)
    );
}

#[test]
fn every_event_of_the_built_in_channels_has_a_type() {
    let rules = Rules::builtin();
    for namespace in rules.namespaces() {
        for event in events(&namespace) {
            let known = EVENTS.iter().any(|(name, _)| *name == event);
            let free = event.ends_with('*') || ["team:update", "shared:test"].contains(&event.as_str());
            assert!(known || free, "{event} of {} has no type in EVENTS", namespace.name);
        }
    }
}

#[test]
fn no_type_takes_a_name_that_typescript_has_itself() {
    let own = [
        "Array", "Date", "Error", "Event", "Map", "Omit", "Partial", "Pick", "Promise", "Record", "Required",
        "Set",
    ];
    let taken: Vec<String> = schemas().into_keys().filter(|name| own.contains(&name.as_str())).collect();
    assert!(taken.is_empty(), "{taken:?}: the types would mean these where they mean TypeScript's");
}

fn types() -> String {
    let mut text = HEAD.to_owned();
    for (name, schema) in schemas() {
        declare(&mut text, &name, &schema);
    }
    let _ = write!(text, "\n{REST}");
    text.push_str("\n/** What the messages of each event say. */\nexport interface EventData {\n");
    for (name, data) in EVENTS {
        let _ = writeln!(text, "  '{name}': {data};");
    }
    text.push_str("}\n\n/** The channels of the server, as `channels.toml` declares them. */\nexport interface Channels {\n");
    for namespace in Rules::builtin().namespaces() {
        let events = events(&namespace).iter().map(|event| literal(event)).collect::<Vec<_>>().join(" | ");
        let _ = writeln!(
            text,
            "  '{}': {{ name: {}; snapshot: {}; event: {events} }};",
            namespace.name,
            channel(&namespace),
            namespace.snapshot,
        );
    }
    text.push_str("}\n");
    text
}

fn schemas() -> BTreeMap<String, Value> {
    let document = serde_json::to_value(tidings::http::openapi()).expect("the document is JSON");
    let known = document["components"]["schemas"].as_object().expect("the document has schemas");
    let mut all: BTreeMap<_, _> = known.iter().map(|(name, schema)| (name.clone(), schema.clone())).collect();
    add::<Position>(&mut all);
    add::<TestData>(&mut all);
    add::<JobData<'_>>(&mut all);
    add::<PauseData<'_>>(&mut all);
    add::<JoinAck>(&mut all);
    add::<Reset>(&mut all);
    add::<Greeting<'_>>(&mut all);
    all
}

fn add<T: ToSchema>(all: &mut BTreeMap<String, Value>) {
    let mut found = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut found);
    for (name, schema) in found {
        all.entry(name).or_insert_with(|| serde_json::to_value(schema).expect("a schema is JSON"));
    }
}

fn events(namespace: &Namespace) -> Vec<String> {
    namespace.events.iter().map(ToString::to_string).collect()
}

/// A name in which a `*` or a placeholder stands for any text.
fn literal(name: &str) -> String {
    match name.split_once('*') {
        Some((before, after)) => format!("`{before}${{string}}{after}`"),
        None => format!("'{name}'"),
    }
}

fn channel(namespace: &Namespace) -> String {
    let pattern = namespace.pattern.to_string();
    match (pattern.split_once('{'), pattern.split_once('}')) {
        (Some((before, _)), Some((_, after))) => literal(&format!("{before}*{after}")),
        _ => literal(&pattern),
    }
}

fn declare(text: &mut String, name: &str, schema: &Value) {
    text.push('\n');
    comment(text, "", schema);
    match schema.get("properties").and_then(Value::as_object) {
        Some(properties) => {
            let _ = writeln!(text, "export interface {name} {{");
            fields(text, schema, properties);
            text.push_str("}\n");
        }
        None => {
            let _ = writeln!(text, "export type {name} = {};", shape(schema));
        }
    }
}

fn fields(text: &mut String, schema: &Value, properties: &Map<String, Value>) {
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
    for (field, schema) in properties {
        comment(text, "  ", schema);
        let mark = if required.contains(&&Value::from(field.as_str())) { "" } else { "?" };
        // What is not there is left out, and never null.
        let shape = shape(schema);
        let shape = shape.strip_suffix(" | null").unwrap_or(&shape);
        let _ = writeln!(text, "  {field}{mark}: {shape};");
    }
    if schema.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false)) {
        text.push_str("  [more: string]: unknown;\n");
    }
}

fn comment(text: &mut String, indent: &str, schema: &Value) {
    let of_choice = || schema["oneOf"].as_array()?.iter().find_map(|schema| schema["description"].as_str());
    if let Some(description) = schema["description"].as_str().or_else(of_choice) {
        let line = description.replace("*/", "* /").replace('\n', " ");
        let _ = writeln!(text, "{indent}/** {line} */");
    }
}

fn shape(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().unwrap_or(name).to_owned();
    }
    if let Some(values) = schema["enum"].as_array() {
        return values
            .iter()
            .map(|value| value.to_string().replace('"', "'"))
            .collect::<Vec<_>>()
            .join(" | ");
    }
    if let Some(choices) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        return choices.iter().map(shape).collect::<Vec<_>>().join(" | ");
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return parts.iter().map(shape).collect::<Vec<_>>().join(" & ");
    }
    match &schema["type"] {
        Value::Array(types) => {
            let alone = |kind: &Value| {
                let mut schema = schema.clone();
                schema["type"] = kind.clone();
                shape(&schema)
            };
            types.iter().map(alone).collect::<Vec<_>>().join(" | ")
        }
        Value::String(kind) => match kind.as_str() {
            "integer" | "number" => "number".to_owned(),
            "array" => match shape(&schema["items"]) {
                item if item.contains('|') => format!("({item})[]"),
                item => format!("{item}[]"),
            },
            "object" => object(schema),
            other => other.to_owned(),
        },
        _ => "unknown".to_owned(),
    }
}

fn object(schema: &Value) -> String {
    let Some(properties) = schema["properties"].as_object() else {
        let more = schema.get("additionalProperties").map_or_else(|| "unknown".to_owned(), shape);
        return format!("Record<string, {more}>");
    };
    let mut text = String::from("{\n");
    fields(&mut text, schema, properties);
    text.push('}');
    text.replace('\n', " ").replace("  ", " ")
}
