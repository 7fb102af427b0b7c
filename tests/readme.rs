//! Keeps the README in step with the examples.

#[test]
fn the_quick_start_in_the_readme_equals_the_example() {
    let (readme, example) =
        (include_str!("../README.md"), include_str!("../examples/quick_start.rs"));
    assert!(readme.contains(example), "copy examples/quick_start.rs into the README");
}
