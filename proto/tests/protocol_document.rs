//! PROTOCOL.md names every call there is, and none that is not.

use std::collections::BTreeSet;

fn calls() -> BTreeSet<String> {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/schema");
    let files = [
        "muster/command/v1/command.proto",
        "muster/command/v1/endpoint.proto",
        "muster/media/v1/media.proto",
        "muster/media/v1/link.proto",
    ];
    let descriptors = protox::compile(files, [schema]).expect("the schema compiles");
    descriptors
        .file
        .iter()
        .flat_map(|file| &file.service)
        .flat_map(|service| {
            let name = service.name().to_owned();
            service.method.iter().map(move |m| format!("{name}.{}", m.name()))
        })
        .collect()
}

fn named(document: &str) -> BTreeSet<String> {
    document
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
        .filter(|word| word.contains("Service."))
        .map(|word| word.trim_end_matches('.').to_owned())
        .collect()
}

#[test]
fn the_protocol_document_names_every_call() {
    let document = include_str!("../../PROTOCOL.md");
    let (calls, named) = (calls(), named(document));
    let missing: Vec<_> = calls.difference(&named).collect();
    assert!(missing.is_empty(), "PROTOCOL.md does not name {missing:?}");
    let gone: Vec<_> = named.difference(&calls).collect();
    assert!(
        gone.is_empty(),
        "PROTOCOL.md names {gone:?}, which the schema does not have"
    );
    assert!(calls.len() > 20, "only {} calls found", calls.len());
}
