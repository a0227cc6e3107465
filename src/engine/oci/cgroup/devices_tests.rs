use super::*;

fn rules_of(json: &str) -> Vec<Rule> {
    rules(&serde_json::from_str(&format!(r#"{{"devices":{json}}}"#)).unwrap()).unwrap()
}

fn lines(json: &str) -> Vec<String> {
    let writes = v1_writes(&rules_of(json)).unwrap();
    writes.iter().map(|write| format!("{} {}", if write.allow { "+" } else { "-" }, write.rule)).collect()
}

/// Runs a program as the kernel would.
fn run(program: &[Instruction], kind: u32, major: u32, minor: u32, access: u8) -> bool {
    let context = [kind | u32::from(access) << 16, major, minor];
    let mut register = [0u64; 11];
    let mut next = 0;
    loop {
        let step = program[next];
        let (to, from) = (usize::from(step.registers & 15), usize::from(step.registers >> 4));
        let immediate = step.immediate as i64 as u64;
        next += 1;
        let mut jump = |taken: bool| next += if taken { step.offset as usize } else { 0 };
        match step.code {
            LOAD_WORD => register[to] = u64::from(context[step.offset as usize / 4]),
            MOVE => register[to] = immediate,
            MOVE_REGISTER => register[to] = register[from],
            AND => register[to] &= immediate,
            SHIFT_RIGHT => register[to] >>= immediate,
            JUMP_IF_EQUAL => jump(register[to] == immediate),
            JUMP_UNLESS_EQUAL => jump(register[to] != immediate),
            EXIT => return register[0] == 1,
            code => panic!("unknown instruction {code:#x}"),
        }
    }
}

#[test]
fn the_default_is_one_denial_and_the_default_devices() {
    let lines = lines(r#"[{"allow":false,"access":"rwm"}]"#);
    assert_eq!(lines[..4], ["- a", "+ b *:* m", "+ c *:* m", "+ c 1:3 rwm"]);
    assert_eq!(lines.len(), 12);
    assert_eq!(lines.last().unwrap(), "+ c 136:* rwm");
}

#[test]
fn privileged_is_one_write() {
    assert_eq!(lines(r#"[{"allow":false},{"allow":true,"access":"rwm"}]"#), ["+ a"]);
}

#[test]
fn what_v1_cannot_say_is_an_error() {
    let rules = rules_of(
        r#"[{"allow":false},{"allow":true,"type":"c","major":10},{"allow":false,"type":"c","major":10,"minor":7,"access":"r"}]"#,
    );
    assert!(v1_writes(&rules).unwrap_err().to_string().contains("c 10:7 r"));
}

#[test]
fn a_later_denial_takes_back_what_it_covers() {
    let lines = lines(
        r#"[{"allow":true,"type":"b","major":8,"minor":1,"access":"rw"},{"allow":false,"type":"b","major":8,"access":"w"}]"#,
    );
    assert!(lines.contains(&"+ b 8:1 r".to_owned()), "{lines:?}");
}

#[test]
fn bad_rules_are_named() {
    for bad in
        [r#"{"allow":true,"access":"x"}"#, r#"{"allow":true,"type":"c","major":-2}"#, r#"{"allow":true,"type":"p"}"#]
    {
        let resources = serde_json::from_str(&format!(r#"{{"devices":[{{"allow":false}},{bad}]}}"#)).unwrap();
        assert!(rules(&resources).unwrap_err().to_string().contains("/linux/resources/devices/1"), "{bad}");
    }
}

#[test]
fn the_program_obeys_the_last_matching_rule() {
    let program = program(&rules_of(
        r#"[{"allow":false},{"allow":true,"type":"c","major":10,"access":"rw"},{"allow":false,"type":"c","major":10,"minor":7,"access":"w"}]"#,
    ));
    let may = |major, minor, access| run(&program, 2, major, minor, access);
    assert!(may(1, 3, READ | WRITE));
    assert!(may(10, 1, READ | WRITE | MKNOD), "two rules together grant what was asked for");
    assert!(may(10, 7, READ) && !may(10, 7, WRITE) && !may(10, 7, READ | WRITE));
    assert!(may(4, 4, MKNOD) && !may(4, 4, READ));
    assert!(!run(&program, 1, 1, 3, READ), "a block device of the same numbers is another device");
}

#[test]
fn an_allowing_program_denies_only_the_exceptions() {
    let program = program(&rules_of(r#"[{"allow":true},{"allow":false,"type":"b","major":8,"access":"w"}]"#));
    assert!(run(&program, 1, 8, 0, READ) && !run(&program, 1, 8, 0, WRITE) && run(&program, 2, 99, 99, ALL));
}
