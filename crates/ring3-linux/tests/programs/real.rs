//! Programs that people use.

use std::fs;

use microvm_ring3_linux::{ExitStatus, Input, Program, Run, SandboxOptions};

use crate::fixture::*;

fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/one.txt"), "one\nthree\ntwo\n").unwrap();
    fs::write(at("a/b/numbers"), "3 c\n1 a\n2 b\n").unwrap();
    fs::write(at("f"), "hello\n".repeat(1000)).unwrap();
    std::os::unix::fs::symlink("a/one.txt", at("link")).unwrap();
    std::os::unix::fs::symlink("/a/b", at("absolute")).unwrap();
    folder
}

pub fn busybox_applets_give_the_right_output() {
    let folder = tree();
    let mut sandbox = sandbox_in(folder.path());
    let expected = {
        let output = std::process::Command::new("sha256sum")
            .arg(folder.path().join("f"))
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()[..64].to_owned()
    };
    let cases: [(&[&str], String); 14] = [
        (&["echo", "a  b"], "a  b\n".into()),
        (&["sha256sum", "/f"], format!("{expected}  /f\n")),
        (&["sort", "/a/b/numbers"], "1 a\n2 b\n3 c\n".into()),
        (
            &["sort", "-rn", "/absolute/numbers"],
            "3 c\n2 b\n1 a\n".into(),
        ),
        (&["wc", "-l", "/f"], "1000 /f\n".into()),
        (&["cat", "/link"], "one\nthree\ntwo\n".into()),
        (
            &["grep", "-n", "t", "/a/one.txt"],
            "2:three\n3:two\n".into(),
        ),
        (&["sed", "s/e$/E/", "/link"], "onE\nthreE\ntwo\n".into()),
        (
            &[
                "awk",
                "{ s += $1; t = $2 t } END { printf \"%d %s\\n\", s, t }",
                "/a/b/numbers",
            ],
            "6 bac\n".into(),
        ),
        (&["readlink", "/absolute"], "/a/b\n".into()),
        (&["head", "-n", "1", "/f"], "hello\n".into()),
        (&["basename", "/x/y.z", ".z"], "y\n".into()),
        (&["expr", "6", "*", "7"], "42\n".into()),
        (&["seq", "3"], "1\n2\n3\n".into()),
    ];
    for (args, expected) in cases {
        assert_eq!(text(busybox(&mut sandbox, args)), expected, "{args:?}");
    }
    let listed = text(busybox(&mut sandbox, &["ls", "-R", "/a"]));
    assert_eq!(listed, "/a:\nb\none.txt\n\n/a/b:\nnumbers\n");
    let mut found: Vec<_> = text(busybox(&mut sandbox, &["find", "/", "-type", "f"]))
        .lines()
        .map(str::to_owned)
        .collect();
    found.sort();
    assert_eq!(found, ["/a/b/numbers", "/a/one.txt", "/f"]);
    let outcome = busybox(&mut sandbox, &["cat", "/nothing"]);
    assert_eq!(outcome.exit, ExitStatus::Exited(1));
    assert!(String::from_utf8_lossy(&outcome.stderr).contains("No such file"));
}

pub fn busybox_writes_files_in_memory_only() {
    let folder = tree();
    let mut sandbox = sandbox_in(folder.path());
    let run = |sandbox: &mut _, args: &[&str]| text(busybox(sandbox, args));
    run(&mut sandbox, &["cp", "/a/one.txt", "/a/copy"]);
    run(&mut sandbox, &["mkdir", "-p", "/new/deep"]);
    run(&mut sandbox, &["tar", "cf", "/tmp/x.tar", "a"]);
    let listed = run(&mut sandbox, &["tar", "tf", "/tmp/x.tar"]);
    let mut listed: Vec<_> = listed.lines().collect();
    listed.sort();
    assert_eq!(listed, ["a/", "a/b/", "a/b/numbers", "a/copy", "a/one.txt"]);
    run(
        &mut sandbox,
        &["tar", "xf", "/tmp/x.tar", "-C", "/new/deep"],
    );
    assert_eq!(
        run(&mut sandbox, &["cat", "/new/deep/a/copy"]),
        "one\nthree\ntwo\n"
    );
    run(&mut sandbox, &["rm", "-r", "/a"]);
    assert_eq!(
        run(&mut sandbox, &["ls", "/"]),
        "absolute\ndev\nf\nlink\nnew\ntmp\n"
    );
    run(&mut sandbox, &["mv", "/f", "/g"]);
    assert_eq!(run(&mut sandbox, &["wc", "-c", "/g"]), "6000 /g\n");
    run(&mut sandbox, &["sed", "-i", "s/hello/bye/", "/g"]);
    assert_eq!(run(&mut sandbox, &["head", "-n1", "/g"]), "bye\n");
    // The folder itself is as it was.
    assert_eq!(
        fs::read_to_string(folder.path().join("f")).unwrap().len(),
        6000
    );
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "absolute", "f", "link"]);
    assert!(!folder.path().join("a/copy").exists());
    sandbox.reset().unwrap();
    assert_eq!(
        run(&mut sandbox, &["ls", "/"]),
        "a\nabsolute\ndev\nf\nlink\ntmp\n"
    );
    assert_eq!(
        run(&mut sandbox, &["cat", "/a/one.txt"]),
        "one\nthree\ntwo\n"
    );
}

pub fn shell_scripts_of_builtins_and_loops_run() {
    let script = r#"
        sum=0
        for i in 1 2 3 4 5; do sum=$((sum + i)); done
        i=0
        while [ $i -lt 100 ]; do i=$((i + 1)); done
        f() { local x=$1; echo "f $x"; }
        f "$sum"
        case abc in a*) echo matches;; *) echo not;; esac
        echo line > /tmp/file
        echo more >> /tmp/file
        while read -r word; do printf '<%s>' "$word"; done < /tmp/file
        echo
        test -f /tmp/file && echo there
        cd /tmp && pwd
        trap 'echo bye' EXIT
        exit 3
    "#;
    let mut sandbox = sandbox();
    let outcome = busybox(&mut sandbox, &["ash", "-c", script]);
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    assert_eq!(
        String::from_utf8_lossy(&outcome.stdout),
        "f 15\nmatches\n<line><more>\nthere\n/tmp\nbye\n",
        "{stderr}"
    );
    assert_eq!(outcome.exit, ExitStatus::Exited(3));
    assert!(!outcome.wanted_processes());
}

pub fn programs_that_start_others_are_told_that_there_are_none() {
    let mut sandbox = sandbox();
    let outcome = busybox(
        &mut sandbox,
        &["ash", "-c", "while :; do true | true || exit 9; done"],
    );
    assert!(outcome.wanted_processes(), "{:?}", outcome.unsupported);
    assert_ne!(outcome.exit, ExitStatus::Exited(0));
    let text = String::from_utf8_lossy(&outcome.stderr);
    assert!(text.contains("fork"), "{text}");
}

pub fn stdin_reaches_the_program() {
    let mut sandbox = sandbox();
    let run = Run {
        stdin: Input::Bytes(b"b\na\nc\n".repeat(50_000)),
        ..Run::default()
    };
    let program = Program::at(busybox_path()).args(["sort", "-u"]);
    assert_eq!(text(sandbox.run(program, run).unwrap()), "a\nb\nc\n");
}

const GLIBC: &str = "arguments x y z; HOME=/home\nrealloc 15\nsorted 1\n\
    sin 0.479425538604 sqrt 0.707106781187 third 1.000000000000000000\njumped 42\npid 2 uid 1000\n";

pub fn glibc_programs_run_at_fixed_and_any_address() {
    for options in [
        &["-static"][..],
        &["-static-pie", "-fPIE"],
        &["-static", "-march=native"],
    ] {
        let mut sandbox = sandbox_with(SandboxOptions {
            env: vec![c"HOME=/home".into()],
            ..SandboxOptions::default()
        });
        // The second run finds what the first one left.
        for _ in 0..3 {
            let program = Program::at(c_program("glibc", options)).args(["x", "y z"]);
            let outcome = sandbox.run(program, Run::default()).unwrap();
            assert_eq!(
                String::from_utf8_lossy(&outcome.stdout),
                GLIBC,
                "{options:?} {outcome:?}"
            );
            assert_eq!(outcome.stderr, b"done\n");
            assert_eq!(outcome.exit, ExitStatus::Exited(7));
        }
    }
}

pub fn rust_programs_run() {
    let folder = tree();
    let mut sandbox = sandbox_in(folder.path());
    let path = rust_program("rusty");
    let program = Program::at(&path).args(["read", "/link"]);
    let output = text(sandbox.run(program, Run::default()).unwrap());
    let lines: Vec<_> = output.lines().collect();
    assert!(lines[0].starts_with("[(0, 7142142), (1, "), "{output}");
    let rest = [
        "caught true",
        "3 lines",
        "ONE",
        "THREE",
        "TWO",
        "7.485470861",
    ];
    assert_eq!(lines[1..], rest);
    let program = Program::at(&path).args(["panic"]);
    let outcome = sandbox.run(program, Run::default()).unwrap();
    assert_eq!(outcome.exit, ExitStatus::Exited(101));
    assert!(String::from_utf8_lossy(&outcome.stderr).contains("on purpose"));
}

pub fn lua_runs_a_script() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        local words = {}
        for line in io.lines("/words") do words[#words + 1] = line end
        table.sort(words)
        print(table.concat(words, ","), #arg, arg[1])
        local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
        print(fib(20), string.format("%.6f", math.sin(1)), ("x"):rep(3))
        local file = assert(io.open("/tmp/out", "w"))
        file:write(os.time() > 1700000000 and "later" or "earlier"):close()
        print(io.open("/tmp/out"):read("a"), select(2, pcall(error, "caught")))
        local routine = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end)
        print(routine() + routine() + routine())
        print(os.execute and os.execute("true"))
    "#;
    fs::write(folder.path().join("script.lua"), script).unwrap();
    fs::write(folder.path().join("words"), "pear\napple\nfig\n").unwrap();
    let mut sandbox = sandbox_in(folder.path());
    let program = Program::at(lua()).args(["/script.lua", "first", "second"]);
    let output = text(sandbox.run(program, Run::default()).unwrap());
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[0], "apple,fig,pear\t2\tfirst");
    assert_eq!(lines[1], "6765\t0.841471\txxx");
    assert_eq!(lines[2], "later\tcaught");
    assert_eq!(lines[3], "6");
}
