use super::*;

/// What a call looks like to its receiver: the header fields of calls and replies are the same.
fn received(bytes: &[u8]) -> Message {
    let (prologue, rest) = bytes.split_first_chunk::<PROLOGUE>().unwrap();
    assert_eq!(rest_length(prologue).unwrap(), rest.len());
    Message::parse(prologue, rest).unwrap()
}

#[test]
fn what_is_written_can_be_read() {
    let target = Target { destination: "a.b", path: "/a", interface: "a.b.C", member: "Do" };
    let properties = [("Slice".to_owned(), Value::text("x.slice")), ("Delegate".to_owned(), Value::Bool(true))];
    let arguments = [Argument::Str("unit"), Argument::Str("replace"), Argument::Properties(&properties)];
    let message = received(&call(7, &target, &arguments));
    assert_eq!((message.kind, message.member.as_str()), (METHOD_CALL, "Do"));
    assert_eq!(message.signature, "ssa(sv)");
    assert_eq!(message.strings(), ["unit", "replace"]);
    assert!(received(&call(8, &target, &[])).strings().is_empty());
}

#[test]
fn alignment_of_arrays_counts_from_the_first_element() {
    let mut writer = Writer::default();
    writer.argument(&Argument::Properties(&[("A".to_owned(), Value::Array("t", vec![Value::U64(5)]))]));
    let expected: &[u8] = &[
        32, 0, 0, 0, 0, 0, 0, 0, // length, padding to the struct
        1, 0, 0, 0, b'A', 0, // name
        2, b'a', b't', 0, 0, 0, // signature, padding to the length
        8, 0, 0, 0, 0, 0, 0, 0, // length, padding to the number, which the length leaves out
        0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(writer.0.len(), 8 + u32::from_le_bytes(writer.0[..4].try_into().unwrap()) as usize);
    assert_eq!(writer.0[8..14], expected[8..14]);
    assert_eq!(writer.0[writer.0.len() - 8..], [5, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn nonsense_is_an_error_and_no_panic() {
    assert!(rest_length(&[0xff; PROLOGUE]).is_err());
    let mut prologue = [0; PROLOGUE];
    prologue[0] = b'l';
    prologue[12] = 40;
    assert!(Message::parse(&prologue, &[6, 1, b's', 0, 255, 255, 255, 255]).is_err());
}

/// A reply with a body of this signature.
fn reply(signature: &str, write: impl FnOnce(&mut Writer)) -> Message {
    let mut body = Writer::default();
    write(&mut body);
    Message { kind: METHOD_RETURN, signature: signature.to_owned(), body: body.0, ..Message::default() }
}

#[test]
fn a_variant_is_what_is_in_it() {
    let list = Value::Array("s", vec![Value::text("man:rtx(1)"), Value::text("file:/run/rtx/c")]);
    assert_eq!(reply("v", |body| body.variant(&list)).strings(), ["man:rtx(1)", "file:/run/rtx/c"]);
    assert_eq!(reply("v", |body| body.variant(&Value::text("x"))).strings(), ["x"]);
    assert!(reply("v", |body| body.variant(&Value::Bool(true))).strings().is_empty());
}

#[test]
fn units_of_a_list() {
    let write = |body: &mut Writer| {
        body.array(8, |list| {
            for name in ["a.scope", "bcd.scope"] {
                list.align(8);
                for text in [name, "about", "loaded", "active", "running", "", "/unit"] {
                    list.text(text);
                }
                list.u32(0);
                list.text("");
                list.text("/");
            }
        });
    };
    let expected = ["a.scope", "bcd.scope"].map(|name| (name.to_owned(), "about".to_owned()));
    assert_eq!(reply("a(ssssssouso)", write).units().unwrap(), expected);
    assert!(reply("a(ssssssouso)", |body| body.u32(64)).units().is_err());
    assert!(reply("as", write).units().is_err());
}

#[test]
fn pairs_are_structs() {
    let mut writer = Writer::default();
    writer.variant(&Value::Pairs(vec![("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())]));
    let expected: &[u8] = &[
        5, b'a', b'(', b's', b's', b')', 0, 0, // signature, padding to the length
        30, 0, 0, 0, 0, 0, 0, 0, // padding to the struct
        1, 0, 0, 0, b'a', 0, 0, 0, 1, 0, 0, 0, b'b', 0, 0, 0, // padding to the next
        1, 0, 0, 0, b'c', 0, 0, 0, 1, 0, 0, 0, b'd', 0,
    ];
    assert_eq!(writer.0, expected);
}
