//! What does not compile says why, at the place that is wrong. The texts are those of one compiler, so
//! with another this only sees that there are errors. To renew them: `TRYBUILD=overwrite cargo test`.
#![allow(missing_docs)]

/// The compiler whose texts are kept.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn errors_point_at_the_place_and_say_what_to_do() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).arg("--version").output().unwrap();
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    if !version.starts_with(COMPILER) {
        return println!("not {COMPILER}: {version}");
    }
    let tests = trybuild::TestCases::new();
    tests.compile_fail("tests/ui/*.rs");
    // With a program that is built, and not only checked, all are: some errors come late.
    tests.pass("tests/ui/pass/*.rs");
}
