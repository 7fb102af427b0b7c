//! The code in README.md and docs/. The library's doctests compile it, except tests, which rustdoc
//! drops: they are here, and in the examples, and run.

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
    let library = include_str!("../../src/lib.rs");
    let (_, listed) = library.split_once("pages!(").expect("the list of pages");
    let (listed, _) = listed.split_once(')').expect("the end of the list");
    for (name, page) in pages().into_iter().skip(1) {
        let has_code = rust_blocks(&page).next().is_some();
        let is_listed = listed.split_whitespace().any(|listed| listed == name);
        assert_eq!(has_code, is_listed, "docs/{name}.md and `pages!` in src/lib.rs");
    }
}

#[test]
fn every_test_on_a_page_is_one_that_runs() {
    let tests = [include_str!("../../examples/quick_start.rs")];
    for (name, page) in pages() {
        for code in rust_blocks(&page).filter(|code| code.contains("test]")) {
            assert!(tests.iter().any(|test| test.contains(code)), "in {name}:\n{code}");
        }
    }
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
