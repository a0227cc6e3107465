//! A runtime to call: which binary, which global flags, and calls that never hang the suite.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::children::{become_subreaper, shell_code, wait_child};

/// How long a runtime may take before it is killed and the test fails.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What a finished runtime left: its exit code as a shell would say it, and what it printed.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// Where stdout goes: a container that was started in the background goes on writing there.
    pub stdout_file: PathBuf,
}

impl Output {
    /// Fails the test when the exit code is not 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        assert_eq!(self.code, 0, "unexpected exit code; stderr: {}", self.stderr);
        self
    }

    /// Fails the test when the exit code or the text of stderr is not the expected one.
    #[track_caller]
    pub fn fails(self, code: i32, text: &str) -> Output {
        assert_eq!(self.code, code, "unexpected exit code; stderr: {}", self.stderr);
        assert!(self.stderr.contains(text), "{text:?} is not in stderr: {}", self.stderr);
        self
    }
}

/// A runtime with a state directory (`--root`) of its own.
pub struct Runtime {
    pub program: PathBuf,
    global: Vec<String>,
    wrapper: Vec<String>,
    dir: TempDir,
}

impl Runtime {
    /// The runtime that is tested: rtx, unless `RTX_TEST_RUNTIME` names another one.
    pub fn under_test() -> Runtime {
        let program = std::env::var("RTX_TEST_RUNTIME").unwrap_or_else(|_| env!("CARGO_BIN_EXE_rtx").to_owned());
        let mut runtime = Runtime::at(program.into());
        if let Some(engine) = engine() {
            runtime.global.extend(["--engine".to_owned(), engine]);
        }
        runtime
    }

    /// The runtime to compare with, when it is installed.
    pub fn peer() -> Option<Runtime> {
        let name = std::env::var("RTX_TEST_PEER").unwrap_or_else(|_| "runc".to_owned());
        find_program(&name).map(Runtime::at)
    }

    fn at(program: PathBuf) -> Runtime {
        become_subreaper();
        let dir = tempfile::Builder::new().prefix("rtx-root-").tempdir().expect("make a state directory");
        Runtime { program, global: Vec::new(), wrapper: Vec::new(), dir }
    }

    /// The same runtime and flags with another state directory.
    pub fn copy(&self) -> Runtime {
        Runtime { global: self.global.clone(), wrapper: self.wrapper.clone(), ..Runtime::at(self.program.clone()) }
    }

    /// Whether this is rtx itself and not a stand-in: what only rtx has is tested only then.
    pub fn is_rtx(&self) -> bool {
        self.program.file_name().is_some_and(|name| name == "rtx")
    }

    /// Puts `words` before each call, as `unshare -m`.
    pub fn wrapped(mut self, words: &[&str]) -> Runtime {
        self.wrapper = words.iter().map(|w| (*w).to_owned()).collect();
        self
    }

    /// Adds global flags.
    pub fn with_flags(mut self, flags: &[&str]) -> Runtime {
        self.global.extend(flags.iter().map(|f| (*f).to_owned()));
        self
    }

    /// The state directory.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A directory that lives as long as the runtime, for pid files, logs and sockets.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Calls the runtime with `args` after the global flags.
    pub fn run<S: AsRef<str>>(&self, args: &[S]) -> Output {
        self.invoke(args).run()
    }

    /// Prepares a call.
    pub fn invoke<S: AsRef<str>>(&self, args: &[S]) -> Invocation {
        let root = self.root().display().to_string();
        let program = self.program.display().to_string();
        let mut words = self.wrapper.clone();
        words.extend([program, "--root".to_owned(), root]);
        words.extend(self.global.iter().cloned());
        words.extend(args.iter().map(|a| a.as_ref().to_owned()));
        Invocation::new(words, self.dir.path().to_path_buf())
    }
}

/// A call in preparation. stdin is /dev/null and both outputs are files, so that a container in the background keeps
/// nothing waiting; the environment holds only a PATH.
pub struct Invocation {
    words: Vec<String>,
    env: Vec<(String, String)>,
    dir: PathBuf,
    cwd: Option<PathBuf>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    limit: Duration,
}

impl Invocation {
    /// A call of any program, with its outputs in files of `dir`.
    pub fn new(words: Vec<String>, dir: PathBuf) -> Invocation {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let env = vec![("PATH".to_owned(), path.to_owned())];
        Invocation { words, env, dir, cwd: None, stdin: None, stdout: None, stderr: None, limit: TIME_LIMIT }
    }

    pub fn env(mut self, key: &str, value: &str) -> Invocation {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    pub fn cwd(mut self, dir: &Path) -> Invocation {
        self.cwd = Some(dir.to_path_buf());
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Invocation {
        self.stdin = Some(stdin.into());
        self
    }

    /// Gives `text` on stdin.
    pub fn input(self, text: &str) -> Invocation {
        let path = self.dir.join(format!("in-{}", next_number()));
        std::fs::write(&path, text).expect("write the input");
        self.stdin(File::open(path).expect("open the input"))
    }

    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Invocation {
        self.stdout = Some(stdout.into());
        self
    }

    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Invocation {
        self.stderr = Some(stderr.into());
        self
    }

    /// Puts `words` before the call: a program that ends by executing its arguments.
    pub fn through(mut self, words: &[&str]) -> Invocation {
        self.words.splice(0..0, words.iter().map(|w| (*w).to_owned()));
        self
    }

    /// Puts a shell script before the call, which must end in `exec "$@"`: for descriptors, limits and the like.
    pub fn through_shell(self, script: &str) -> Invocation {
        self.through(&["sh", "-c", script, "sh"])
    }

    /// Gives the call another time limit: for programs that do much more than a runtime.
    pub fn within(mut self, limit: Duration) -> Invocation {
        self.limit = limit;
        self
    }

    /// Starts the runtime and waits for its end.
    pub fn run(self) -> Output {
        self.start().wait()
    }

    /// Starts the runtime.
    pub fn start(self) -> Running {
        let number = next_number();
        let stdout_file = self.dir.join(format!("out-{number}"));
        let stderr_file = self.dir.join(format!("err-{number}"));
        let create = |path: &Path| Stdio::from(File::create(path).expect("make an output file"));
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).env_clear().envs(self.env);
        command.current_dir(self.cwd.as_deref().unwrap_or(&self.dir));
        command.stdin(self.stdin.unwrap_or_else(Stdio::null));
        let (out, err) = (create(&stdout_file), create(&stderr_file));
        command.stdout(self.stdout.unwrap_or(out)).stderr(self.stderr.unwrap_or(err));
        let child = command.spawn().unwrap_or_else(|e| panic!("run {}: {e}", self.words[0]));
        Running { child, words: self.words, stdout_file, stderr_file, limit: self.limit }
    }
}

/// A runtime that was started.
pub struct Running {
    child: Child,
    words: Vec<String>,
    stdout_file: PathBuf,
    stderr_file: PathBuf,
    limit: Duration,
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().expect("a pid")
    }

    /// What is on stdout by now.
    pub fn stdout_now(&self) -> String {
        read_lossy(&self.stdout_file)
    }

    /// Waits for the end; a runtime that takes too long is killed and fails the test.
    pub fn wait(self) -> Output {
        let limit = self.limit;
        self.wait_within(limit)
    }

    /// The same with another limit.
    pub fn wait_within(self, limit: Duration) -> Output {
        self.end_within(limit).unwrap_or_else(|hung| panic!("{hung}"))
    }

    /// The same; what took too long is killed, and said to have hung.
    pub fn end_within(mut self, limit: Duration) -> Result<Output, String> {
        let Some(status) = wait_child(&mut self.child, limit) else {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let stderr = read_lossy(&self.stderr_file);
            return Err(format!("hung for {limit:?} and was killed: {:?}; stderr: {stderr}", self.words));
        };
        Ok(Output {
            code: shell_code(status),
            stdout: read_lossy(&self.stdout_file),
            stderr: read_lossy(&self.stderr_file),
            stdout_file: self.stdout_file,
        })
    }
}

/// The engine that `RTX_TEST_ENGINE` asks for.
pub fn engine() -> Option<String> {
    std::env::var("RTX_TEST_ENGINE").ok().filter(|name| !name.is_empty())
}

/// The content of a file as text; nothing when it cannot be read.
pub fn read_lossy(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// A number that no other caller in this process gets.
pub fn next_number() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

pub fn find_program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|p| p.exists());
    }
    // An ordinary user's PATH often lacks sbin.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').map(|dir| Path::new(dir).join(name)).find(|p| p.is_file())
}
