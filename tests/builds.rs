//! Programs that are edited and built anew, and programs that have names in common: a value is never
//! another program's, nor one of before an edit. Each test builds small packages with cargo.
#![allow(missing_docs)]

mod common;

use common::Dir;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory of packages, which share what is built of this crate.
struct Workspace(Dir);

impl Workspace {
    fn new(packages: &[&str]) -> Workspace {
        let workspace = Workspace(Dir::new());
        let members = packages.join("\", \"");
        let manifest = format!(
            "[workspace]\nmembers = [\"{members}\"]\nresolver = \"3\"\n[profile.dev]\ndebug = 0\n"
        );
        workspace.write("Cargo.toml", &manifest);
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
        fs::copy(lock, workspace.0.join("Cargo.lock")).unwrap();
        workspace
    }

    /// Makes or replaces a file.
    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes the manifest of a package.
    fn package(&self, name: &str, version: &str, more: &str) {
        let own = env!("CARGO_MANIFEST_DIR");
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2024\"\n\
             [dependencies]\npersist-cache = {{ path = \"{own}\" }}\n{more}"
        );
        self.write(&format!("{name}/Cargo.toml"), &manifest);
    }

    /// Builds one of a package's executables with some of rustc's options, and takes it away under a name.
    fn build(&self, package: &str, target: [&str; 2], options: &[&str], name: &str) -> PathBuf {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("builds");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(self.0.path()).args(["rustc", "--offline", "--quiet", "-p", package]);
        cargo.args(target).arg("--target-dir").arg(&directory).arg("--").args(options);
        // What cargo says of the test's own package is not said of these.
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"] {
            cargo.env_remove(variable);
        }
        let output = cargo.env("PERSIST_CACHE_DIR", self.caches()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let folder = if target[0] == "--example" { "debug/examples" } else { "debug" };
        let program = self.0.join(name);
        fs::copy(directory.join(folder).join(target[1]), &program).unwrap();
        program
    }

    fn caches(&self) -> PathBuf {
        self.0.join("caches")
    }

    /// What a program says.
    fn run(&self, program: &Path, settings: &[(&str, &str)]) -> String {
        let mut command = Command::new(program);
        command.env("PERSIST_CACHE_DIR", self.caches()).envs(settings.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// A program that says its five results of a type without a schema, and one with, and how often it computed
/// those without and those with.
fn reports(fields: &str, value: &str) -> String {
    let types = |derive: &str, size: &str, report: &str, fields: &str| {
        format!(
            "#[derive(Archive, Serialize, Deserialize{derive})]
             #[rkyv(crate = persist_cache::rkyv)]
             struct {size} {{ {fields} }}
             #[derive(Archive, Serialize, Deserialize{derive})]
             #[rkyv(crate = persist_cache::rkyv)]
             struct {report} {{ size: {size} }}"
        )
    };
    let without = types("", "Size", "Report", fields);
    let with = types(", persist_cache::Schema", "Width", "Lasting", "width: u32");
    format!(
        "use persist_cache::rkyv::{{Archive, Deserialize, Serialize}};
         use persist_cache::{{MmapCache, cache}};
         use std::sync::atomic::{{AtomicU64, Ordering::Relaxed}};
         {without}
         {with}
         static RUNS: AtomicU64 = AtomicU64::new(0);
         static LASTING: AtomicU64 = AtomicU64::new(0);
         fn report() -> Report {{
             RUNS.fetch_add(1, Relaxed);
             Report {{ size: Size {{ {value} }} }}
         }}
         #[cache]
         fn marked(_n: u64) -> Report {{ report() }}
         #[cache]
         fn lasting(_n: u64) -> Lasting {{
             LASTING.fetch_add(1, Relaxed);
             Lasting {{ size: Width {{ width: 7 }} }}
         }}
         fn main() {{
             let cache = MmapCache::open(\"reports\").unwrap();
             let say = |size: &ArchivedSize| print!(\"{{}} {{}}, \", size.width, size.height);
             say(&cache.memoize(|_: &u64| report()).call(&1).size);
             say(&cache.memoize_as(\"named\", |_: &u64| report()).call(&1).size);
             say(&cache.table::<u64, Report>(\"table\").get_or_insert_with(&1, report).size);
             let items = cache.memoize_iter_as(\"items\", |_: &u64| [report()]);
             items.call(&1).for_each(|item| print!(\"{{}} {{}}, \", item.size.width, item.size.height));
             say(&marked::archived(1).size);
             let runs = (RUNS.load(Relaxed), lasting(1).size.width, LASTING.load(Relaxed));
             println!(\"{{}} {{}} {{}}\", runs.0, runs.1, runs.2);
         }}"
    )
}

#[test]
fn a_nested_type_that_is_edited_gives_no_wrong_value_and_a_restart_hits() {
    let workspace = Workspace::new(&["reports"]);
    workspace.package("reports", "0.1.0", "");
    let edits = [
        ("width: u32, height: u32", "width: 1, height: 2"),
        ("height: u32, width: u32", "width: 1, height: 2"),
        ("width: f32, height: u32", "width: 1.0, height: 2"),
        ("width: u32, height: u32", "width: 1, height: 2"),
    ];
    let values = "1 2, ".repeat(5);
    for (number, (fields, value)) in edits.into_iter().enumerate() {
        workspace.write("reports/src/main.rs", &reports(fields, value));
        let target = ["--bin", "reports"];
        let name = format!("reports-{number}");
        let program = workspace.build("reports", target, &[], &name);
        let first = workspace.run(&program, &[]);
        let lasting = u64::from(number == 0);
        let computed = format!("{values}5 7 {lasting}");
        // Built as before, it may be the very same program again.
        assert!(first == computed || (number == 3 && first == format!("{values}0 7 0")), "{first}");
        assert_eq!(workspace.run(&program, &[]), format!("{values}0 7 0"));
    }
}

/// Linkers need not give a build id.
#[cfg(target_os = "linux")]
#[test]
fn a_program_without_a_build_id_is_known_by_its_file() {
    let workspace = Workspace::new(&["bare"]);
    workspace.package("bare", "0.1.0", "");
    let target = ["--bin", "bare"];
    let options = ["-Clink-arg=-Wl,--build-id=none"];
    let values = "1 2, ".repeat(5);
    for (number, (field, one)) in [("u32", "1"), ("f32", "1.0")].into_iter().enumerate() {
        let fields = format!("width: {field}, height: u32");
        workspace.write("bare/src/main.rs", &reports(&fields, &format!("width: {one}, height: 2")));
        let program = workspace.build("bare", target, &options, &format!("bare-{number}"));
        let lasting = u64::from(number == 0);
        assert_eq!(workspace.run(&program, &[]), format!("{values}5 7 {lasting}"));
        assert_eq!(workspace.run(&program, &[]), format!("{values}0 7 0"));
    }
}

/// A function that is spelled alike everywhere, and another that it calls.
fn pages(word: &str) -> String {
    format!(
        "use persist_cache::cache;
         use std::sync::atomic::{{AtomicU64, Ordering::Relaxed}};
         static RUNS: AtomicU64 = AtomicU64::new(0);
         fn render(text: &str) -> String {{
             RUNS.fetch_add(1, Relaxed);
             format!(\"{word} {{text}}\")
         }}
         #[cache]
         pub fn page(text: &str) -> String {{ render(text) }}
         pub fn said() -> String {{
             format!(\"{{}} {{}}\", page(\"x\"), RUNS.load(Relaxed))
         }}"
    )
}

#[test]
fn functions_of_one_path_are_told_apart_by_package_and_target() {
    let workspace = Workspace::new(&["one", "two"]);
    let more = format!(
        "[build-dependencies]\npersist-cache = {{ path = \"{}\" }}\n\
         [lib]\nname = \"tool\"\n[[bin]]\nname = \"tool\"\npath = \"src/main.rs\"\n",
        env!("CARGO_MANIFEST_DIR")
    );
    let main = "fn main() { println!(\"{}, {}, {}\", said(), ::tool::said(), env!(\"SAID\")); }";
    let build = "fn main() { println!(\"cargo::rustc-env=SAID={}\", said()); }";
    let check = |version: &str, runs: u64| {
        for name in ["one", "two"] {
            workspace.package(name, version, &more);
            let write = |path: &str, kind: &str, main: &str| {
                let text = pages(&format!("{name} {kind}")) + main;
                workspace.write(&format!("{name}/{path}"), &text);
            };
            write("build.rs", "build", build);
            write("src/lib.rs", "lib", "");
            write("src/main.rs", "bin", main);
            write("examples/tool.rs", "example", "fn main() { println!(\"{}\", said()); }");
        }
        for name in ["one", "two"] {
            let bin = workspace.build(name, ["--bin", "tool"], &[], "bin");
            let said = format!("{name} bin x {runs}, {name} lib x {runs}, {name} build x {runs}");
            assert_eq!(workspace.run(&bin, &[]), said);
            let example = workspace.build(name, ["--example", "tool"], &[], "example");
            assert_eq!(workspace.run(&example, &[]), format!("{name} example x {runs}"));
        }
    };
    check("0.1.0", 1);
    // The version does not count.
    check("0.2.0", 0);
}

#[test]
fn a_helper_that_differs_is_seen_where_the_program_counts_as_code() {
    let workspace = Workspace::new(&["helpers"]);
    workspace.package("helpers", "0.1.0", "");
    let main = "
        #[cache(code = \"program\")]
        fn whole(text: &str) -> String { render(text) }
        fn main() {
            let options = persist_cache::MmapCache::options();
            let cache = options.code(persist_cache::Code::Program).open(\"whole\").unwrap();
            let named = cache.memoize_as(\"named\", |text: &str| render(text));
            let closure = cache.memoize(|text: &str| render(text));
            println!(
                \"{}, {}, {}, {}\",
                said(), whole(\"x\"), named.call(\"x\").as_str(), closure.call(\"x\").as_str(),
            );
        }";
    let program = |word: &str| {
        workspace.write("helpers/src/main.rs", &(pages(word) + main));
        workspace.build("helpers", ["--bin", "helpers"], &[], word)
    };
    let (old, new) = (program("old"), program("new"));
    assert_eq!(workspace.run(&old, &[]), "old x 1, old x, old x, old x");
    assert_eq!(workspace.run(&old, &[]), "old x 0, old x, old x, old x");
    // That `page` calls another `render` is not seen unless it is asked for.
    assert_eq!(workspace.run(&new, &[]), "old x 0, new x, new x, new x");
    let outside = [("PERSIST_CACHE_CODE", "program")];
    assert_eq!(workspace.run(&new, &outside), "new x 1, new x, new x, new x");
    assert_eq!(workspace.run(&new, &outside), "new x 0, new x, new x, new x");
    assert_eq!(workspace.run(&old, &outside), "old x 1, old x, old x, old x");
    // What says nothing is no setting, and nothing is believed meanwhile.
    let output = Command::new(&old)
        .env("PERSIST_CACHE_DIR", workspace.caches())
        .env("PERSIST_CACHE_CODE", "programm")
        .output();
    let complaint = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(
        complaint.contains("PERSIST_CACHE_CODE") && complaint.contains("programm"),
        "{complaint}"
    );
}

/// A type, and this crate itself, in a Rust library that is linked dynamically.
#[cfg(target_os = "linux")]
#[test]
fn a_type_of_a_library_that_is_linked_dynamically_is_edited() {
    let workspace = Workspace::new(&["library", "user"]);
    workspace.package("library", "0.1.0", "[lib]\ncrate-type = [\"dylib\"]\n");
    workspace.write(
        "user/Cargo.toml",
        "[package]\nname = \"user\"\nedition = \"2024\"\n[dependencies]\nlibrary = { path = \"../library\" }\n",
    );
    workspace.write(
        "user/src/main.rs",
        "use library::persist_cache::MmapCache;
         fn main() {
             let cache = MmapCache::open(\"library\").unwrap();
             let named = cache.memoize_as(\"named\", |_: &u64| library::report());
             println!(\"{} {}\", library::shown(&named.call(&1)), cache.stats().misses);
         }",
    );
    for (field, one) in [("u32", "1"), ("f32", "1.0")] {
        let library = format!(
            "pub use persist_cache;
             use persist_cache::rkyv::{{Archive, Deserialize, Serialize}};
             #[derive(Archive, Serialize, Deserialize)]
             #[rkyv(crate = persist_cache::rkyv)]
             pub struct Size {{ width: {field} }}
             #[derive(Archive, Serialize, Deserialize)]
             #[rkyv(crate = persist_cache::rkyv)]
             pub struct Report {{ size: Size }}
             pub fn report() -> Report {{ Report {{ size: Size {{ width: {one} }} }} }}
             pub fn shown(report: &ArchivedReport) -> String {{ report.size.width.to_string() }}"
        );
        workspace.write("library/src/lib.rs", &library);
        // Names would show it, too.
        let options = ["-Copt-level=3", "-Cstrip=symbols", "-Ccodegen-units=1"];
        let program = workspace.build("user", ["--bin", "user"], &options, "program");
        let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).join("builds/debug");
        let rustc = Command::new("rustc").args(["--print", "target-libdir"]).output().unwrap();
        let of_std = String::from_utf8(rustc.stdout).unwrap();
        let path = format!("{}:{}", beside.display(), of_std.trim());
        let libraries = [("LD_LIBRARY_PATH", &*path)];
        assert_eq!(workspace.run(&program, &libraries), "1 1");
        assert_eq!(workspace.run(&program, &libraries), "1 0");
    }
}
