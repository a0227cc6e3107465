//! Fails one system call of a program, or kills the program at it: `fault REPORT OWN ROLE CALL WHEN ACTION PROGRAM
//! [ARGUMENT...]`. ROLE 0 is the program, 0.0 the first process or thread that it makes, 0.0.1 the second of that one, and so on;
//! `*` is all of them, and their calls are counted together. CALL is a number, of which the WHEN-th one from the program's
//! execution on is meant. ACTION is `none`, `kill`, or the number of the error. Ends as the program does, and with it; with `+`
//! after ROLE not before that process has ended as well, or all where ACTION is `none`. A process that executes something
//! else than OWN, or a copy of it, is nobody's concern any more.
//!
//! strace does nearly the same, but counts the calls of all processes alike, so that those of the second cannot be reached
//! without those of the first. The report has one line for each process, `pid PID`, and where ACTION is `none` one
//! for each execution, `exec ROLE`, and for each call, `ROLE CALL SECOND-ARGUMENT`; otherwise `hit` where there was such a
//! call.
//!
//! Compiled on its own (see `payload.rs`), with nothing but std.

use std::collections::{HashMap, HashSet};
use std::ffi::{c_char, c_int, c_long, c_void, CString};
use std::fmt::Write;
use std::process::exit;
use std::ptr::null_mut;

extern "C" {
    fn ptrace(request: c_long, pid: c_int, address: *mut c_void, data: *mut c_void) -> c_long;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn fork() -> c_int;
    fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn pipe(ends: *mut c_int) -> c_int;
    fn read(file: c_int, buffer: *mut c_void, length: usize) -> isize;
    fn write(file: c_int, buffer: *const c_void, length: usize) -> isize;
    fn close(file: c_int) -> c_int;
}

const CONTINUE: c_long = 7;
const GET_REGISTERS: c_long = 12;
const SET_REGISTERS: c_long = 13;
const DETACH: c_long = 17;
const TO_SYSCALL: c_long = 24;
/// Unlike an ordinary attachment it leaves no SIGSTOP behind for a new process when this one ends.
const SEIZE: c_long = 0x4206;
const EVENT_MESSAGE: c_long = 0x4201;
const SYSCALL_INFO: c_long = 0x420e;
/// Marks stops at system calls; follows fork, vfork and clone; tells of execve.
const OPTIONS: usize = 1 | 2 | 4 | 8 | 16;
const EVENT_EXEC: c_int = 4;
/// fork, vfork and clone.
const EVENTS_NEW: std::ops::RangeInclusive<c_int> = 1..=3;
const WALL: c_int = 0x4000_0000;
const SIGKILL: c_int = 9;
const SIGTRAP: c_int = 5;

/// Where the registers of x86_64 are in user_regs_struct.
const RAX: usize = 10;
const RDI: usize = 14;
const ORIG_RAX: usize = 15;

#[derive(Default)]
struct Process {
    role: String,
    /// How many it has made.
    children: u32,
    executions: u32,
    /// The register that says, after the call at whose entry the process was stopped, what we want it to.
    result: Option<(usize, i64)>,
}

fn request(what: c_long, pid: c_int, address: usize, data: usize) -> c_long {
    // SAFETY: the requests that write to memory are given pointers to values that are large enough.
    unsafe { ptrace(what, pid, address as *mut c_void, data as *mut c_void) }
}

fn registers(pid: c_int) -> [u64; 27] {
    let mut registers = [0; 27];
    request(GET_REGISTERS, pid, 0, registers.as_mut_ptr() as usize);
    registers
}

fn set_register(pid: c_int, index: usize, value: i64) {
    let mut registers = registers(pid);
    registers[index] = value as u64;
    request(SET_REGISTERS, pid, 0, registers.as_ptr() as usize);
}

/// Executes the program, traced from the start.
fn spawn(words: &[String]) -> c_int {
    let words: Vec<CString> = words.iter().map(|word| CString::new(word.as_str()).expect("a word")).collect();
    let mut pointers: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(null_mut());
    // SAFETY: this process has one thread; the child uses only what was made before.
    unsafe {
        let mut ends = [0; 2];
        let mut byte = 0u8;
        pipe(ends.as_mut_ptr());
        let pid = fork();
        if pid == 0 {
            read(ends[0], &mut byte as *mut u8 as *mut c_void, 1);
            close(ends[0]);
            close(ends[1]);
            execv(pointers[0], pointers.as_ptr());
            exit(127);
        }
        request(SEIZE, pid, 0, OPTIONS);
        write(ends[1], &byte as *const u8 as *const c_void, 1);
        close(ends[0]);
        close(ends[1]);
        pid
    }
}

struct Fault {
    role: String,
    lingers: bool,
    call: u64,
    when: u32,
    action: String,
    seen: u32,
    report: String,
}

impl Fault {
    /// At the entry of a call: what it is to return instead of being made.
    fn meet(&mut self, pid: c_int, role: &str, call: u64, argument: u64) -> Option<i64> {
        if self.action == "none" {
            let _ = writeln!(self.report, "{role} {call} {argument}");
            return None;
        }
        if !self.means(role) || call != self.call {
            return None;
        }
        self.seen += 1;
        if self.seen != self.when {
            return None;
        }
        self.report.push_str("hit\n");
        if self.action == "kill" {
            // SAFETY: a process that this one traces.
            unsafe { kill(pid, SIGKILL) };
            return None;
        }
        Some(-self.action.parse::<i64>().expect("an error number"))
    }

    /// Whether more is to come of what is looked at, when the program itself has ended.
    fn goes_on(&self, processes: &HashMap<c_int, Process>) -> bool {
        self.lingers && processes.values().any(|process| self.action == "none" || self.means(&process.role))
    }

    fn end(&self, path: &str, code: i32) -> ! {
        std::fs::write(path, &self.report).expect("write the report");
        exit(code)
    }

    /// Whether the calls of this role are looked at, still.
    fn watches(&self, role: &str) -> bool {
        self.action == "none" || self.means(role) && self.seen < self.when
    }

    fn means(&self, role: &str) -> bool {
        self.role == "*" || role == self.role
    }
}

/// close(2) frees its descriptor whatever it returns.
const CLOSE: u64 = 3;
/// brk(2) fails by changing nothing, as when it is asked for 0.
const BRK: u64 = 12;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [report, own, role, call, when, action, program @ ..] = words.as_slice() else {
        eprintln!("fault REPORT OWN ROLE CALL WHEN ACTION PROGRAM [ARGUMENT...]");
        exit(2);
    };
    let number = |word: &str| word.parse::<u32>().expect("a number");
    let lingers = role.ends_with('+');
    let role = role.trim_end_matches('+').to_owned();
    let (call, when) = (u64::from(number(call)), number(when));
    let mut fault = Fault { role, lingers, call, when, action: action.clone(), seen: 0, report: String::new() };
    // A copy, in memory or on another mount, has the size of the original and nothing else in common.
    let size = |path: &str| std::fs::metadata(path).map(|file| file.len()).ok();
    let is_own = |pid: c_int| size(&format!("/proc/{pid}/exe")) == size(own);
    let first = spawn(program);
    let _ = writeln!(fault.report, "pid {first}");
    let mut processes = HashMap::from([(first, Process { role: "0".to_owned(), ..Process::default() })]);
    // Those that have come before their maker's word of them.
    let (mut early, mut code) = (HashSet::new(), None);
    loop {
        let mut status = 0;
        // SAFETY: the status is written to a value that lives on.
        let pid = unsafe { waitpid(-1, &mut status, WALL) };
        if pid < 0 {
            fault.end(report, code.unwrap_or(2));
        }
        if status & 0xff != 0x7f {
            processes.remove(&pid);
            // The word of its maker may never come.
            early.remove(&pid);
            early.drain().for_each(|pid| _ = request(CONTINUE, pid, 0, 0));
            if pid == first {
                code = Some(if status & 0x7f == 0 { status >> 8 & 0xff } else { 128 + (status & 0x7f) });
            }
            match code {
                Some(code) if !fault.goes_on(&processes) => fault.end(report, code),
                _ => continue,
            }
        }
        let (mut signal, event) = (status >> 8 & 0xff, status >> 16);
        let Some(process) = processes.get_mut(&pid) else {
            early.insert(pid);
            continue;
        };
        let mut is_over = false;
        if event == EVENT_EXEC {
            process.executions += 1;
            is_over = pid != first && !is_own(pid);
            if !is_over && fault.action == "none" {
                let _ = writeln!(fault.report, "exec {}", process.role);
            }
        } else if EVENTS_NEW.contains(&event) {
            let mut made = 0u64;
            request(EVENT_MESSAGE, pid, 0, &mut made as *mut u64 as usize);
            let _ = writeln!(fault.report, "pid {made}");
            let role = format!("{}.{}", process.role, process.children);
            process.children += 1;
            let to_syscall = fault.watches(&process.role);
            let goes_on = if fault.watches(&role) { TO_SYSCALL } else { CONTINUE };
            processes.insert(made as c_int, Process { role, ..Process::default() });
            if early.remove(&(made as c_int)) {
                request(goes_on, made as c_int, 0, 0);
            }
            request(if to_syscall { TO_SYSCALL } else { CONTINUE }, pid, 0, 0);
            continue;
        } else if signal == SIGTRAP | 0x80 {
            let was_meant = process.result.is_some();
            let mut info = [0u64; 11];
            request(SYSCALL_INFO, pid, size_of_val(&info), info.as_mut_ptr() as usize);
            let is_entry = info[0] & 0xff == 1;
            if is_entry && (pid != first || process.executions > 0) {
                process.result = fault.meet(pid, &process.role, info[3], info[5]).map(|error| match info[3] {
                    CLOSE => (RAX, error),
                    BRK => {
                        set_register(pid, RDI, 0);
                        (RDI, info[4] as i64)
                    }
                    _ => {
                        set_register(pid, ORIG_RAX, -1);
                        (RAX, error)
                    }
                });
            } else if let Some((register, value)) = process.result.take().filter(|_| !is_entry) {
                set_register(pid, register, value);
            }
            // The first process of a pid namespace cannot abort while it is traced.
            is_over = was_meant && pid != first;
        }
        if is_over {
            processes.remove(&pid);
            request(DETACH, pid, 0, 0);
            match code {
                Some(code) if !fault.goes_on(&processes) => fault.end(report, code),
                _ => continue,
            }
        }
        if event != 0 || signal == SIGTRAP | 0x80 {
            signal = 0;
        }
        let to_syscall = fault.watches(&process.role) || process.result.is_some();
        request(if to_syscall { TO_SYSCALL } else { CONTINUE }, pid, 0, signal as usize);
    }
}
