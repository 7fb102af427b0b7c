//! The code in README.md and docs/ compiles: as a doctest of the library, or as part of a file here.

#![allow(dead_code, clippy::needless_pass_by_value, reason = "a reader's code, not a test's")]

mod authentication;
mod cluster;
mod getting_started;
mod testing;

use std::fs;
use std::path::Path;

/// The Markdown files whose Rust code is compiled, by name and text.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join("docs")).expect("docs/");
    let pages = entries.map(|entry| entry.expect("an entry").path());
    let markdown = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: &Path| {
        let name = path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned();
        (name, fs::read_to_string(path).expect("a page"))
    };
    let readme = read(&root.join("README.md"));
    std::iter::once(readme).chain(markdown.map(|path| read(&path))).collect()
}

/// The contents of the fenced blocks of Rust.
fn rust_blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split("\n```rust").skip(1).filter_map(|block| {
        let (_attributes, code) = block.split_once('\n')?;
        Some(code.split_once("\n```")?.0)
    })
}

#[test]
fn the_quick_start_in_the_readme_equals_the_example() {
    let (readme, example) =
        (include_str!("../../README.md"), include_str!("../../examples/quick_start.rs"));
    assert!(readme.contains(example), "copy examples/quick_start.rs into the README");
}

/// The pages whose code is part of a file here: programs in pieces, and tests, which rustdoc drops.
const PROGRAMS: [(&str, &str); 4] = [
    ("authentication", include_str!("authentication.rs")),
    ("cluster", include_str!("cluster.rs")),
    ("getting_started", include_str!("getting_started.rs")),
    ("testing", include_str!("testing.rs")),
];

#[test]
fn the_configurations_of_proxies_are_the_files_that_are_tested() {
    let page = include_str!("../../docs/deployment.md");
    for file in
        [include_str!("../../docs/deploy/nginx.conf"), include_str!("../../docs/deploy/Caddyfile")]
    {
        assert!(page.contains(file), "copy into docs/deployment.md:\n{file}");
    }
}

#[test]
fn every_page_with_code_is_compiled() {
    let (_, doctests) = include_str!("../../src/lib.rs").split_once("pages!(").expect("the list");
    let (doctests, _) = doctests.split_once(')').expect("the end of the list");
    for (name, page) in pages().into_iter().filter(|(name, _)| name != "README") {
        let is_doctest = doctests.split_whitespace().any(|listed| listed == name);
        if let Some((_, program)) = PROGRAMS.iter().find(|(of, _)| *of == name) {
            assert!(!is_doctest, "{name} is compiled twice");
            for code in rust_blocks(&page) {
                let is_part = unindented(program).contains(&unindented(code));
                assert!(is_part, "not in tests/docs/{name}.rs:\n{code}");
            }
        } else {
            let has_code = rust_blocks(&page).next().is_some();
            assert_eq!(has_code, is_doctest, "docs/{name}.md and `pages!` in src/lib.rs");
            let mut tests = rust_blocks(&page).filter(|code| code.contains("test]"));
            assert_eq!(tests.next(), None, "rustdoc drops this test of docs/{name}.md");
        }
    }
}

fn unindented(code: &str) -> String {
    code.lines().map(str::trim_start).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_page_hides_no_lines() {
    for (name, page) in pages() {
        for line in rust_blocks(&page).flat_map(str::lines) {
            let is_hidden = line.trim_start() == "#" || line.trim_start().starts_with("# ");
            assert!(!is_hidden, "only rustdoc hides this line of {name}: {line}");
        }
    }
}
