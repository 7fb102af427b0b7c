//! The README shows what the examples are.

#[test]
fn the_quick_start_of_the_readme_is_the_example() {
    let (readme, example) =
        (include_str!("../README.md"), include_str!("../examples/quick_start.rs"));
    assert!(readme.contains(example), "copy examples/quick_start.rs into the README");
}
