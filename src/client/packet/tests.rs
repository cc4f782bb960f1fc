use proptest::prelude::*;

use super::*;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

#[test]
fn the_open_packet_tells_how_long_silence_may_last() {
    let frame =
        r#"0{"sid":"a\"b","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":9}"#;
    let Packet::Open(open) = Packet::parse(frame).expect("a packet") else { panic!("not open") };
    assert_eq!(open.sid, "a\"b");
    assert_eq!(open.silence(), Duration::from_secs(45));
}

#[test]
fn an_event_keeps_its_arguments_unparsed_and_borrowed() {
    let frame = r#"4217["test:progress",{"n":1.50},[ 1 ]]"#;
    let Packet::Event { ack, name, args } = Packet::parse(frame).expect("a packet") else {
        panic!("not an event")
    };
    assert_eq!(ack, Some(17));
    assert!(matches!(name, Cow::Borrowed("test:progress")));
    assert_eq!(args.iter().map(|a| a.get()).collect::<Vec<_>>(), [r#"{"n":1.50}"#, "[ 1 ]"]);
}

#[test]
fn every_packet_reads_back_as_it_was_written() {
    for text in [
        "1",
        "2",
        "2probe",
        "3",
        "6",
        "40",
        r#"40{"token":"t"}"#,
        "41",
        r#"42["e"]"#,
        r#"420["a \"b\"",null,1]"#,
        "433[]",
        r#"4318446744073709551615[{"ok":true},2]"#,
        r#"44{"message":"no"}"#,
    ] {
        assert_eq!(Packet::parse(text).expect(text).text(), text);
    }
}

#[test]
fn the_namespace_written_in_full_is_the_same_namespace() {
    let packet = Packet::parse(r#"42/,["e",1]"#).expect("a packet");
    assert_eq!(packet.text(), r#"42["e",1]"#);
    assert!(matches!(Packet::parse("40/"), Ok(Packet::Connect(None))));
    assert_eq!(
        Packet::parse(r#"42/admin,["e"]"#).expect_err("another namespace"),
        PacketError::Namespace("/admin".to_owned())
    );
}

#[test]
fn what_is_no_packet_is_refused_with_its_reason() {
    for (frame, reason) in [
        ("", "an empty frame"),
        ("4", "an empty frame"),
        ("9", "unknown type '9'"),
        ("49", "unknown type '9'"),
        ("bAAAA", "binary"),
        (r#"451-["e",{"_placeholder":true,"num":0}]"#, "binary"),
        ("42", "an event: "),
        ("42[]", "begins with the event's name"),
        ("42[1]", "expected a string"),
        (r#"42["e""#, "an event: "),
        ("43[1]", "its number is missing"),
        ("4399999999999999999999[]", "its number is too large"),
        ("0{}", "the open packet: "),
        ("44no", "the connect_error packet: "),
    ] {
        let error = Packet::parse(frame).expect_err(frame).to_string();
        assert!(error.contains(reason), "{frame:?} gives {error:?}, which should say {reason:?}");
    }
}

proptest! {
    #[test]
    fn no_frame_makes_the_reader_panic(frame in "\\PC*") {
        let _ = Packet::parse(&frame);
    }

    #[test]
    fn nothing_that_looks_like_a_packet_makes_the_reader_panic(
        frame in "[0-6]{1,2}(/[a-z]{0,2},?)?[0-9]{0,22}[\\[\\]{}\",:\\\\a-z0-9 ]*"
    ) {
        if let Ok(packet) = Packet::parse(&frame) {
            // Whatever is read can be written and read again.
            let text = packet.text();
            prop_assert_eq!(Packet::parse(&text).expect("its own text").text(), text);
        }
    }

    #[test]
    fn any_event_survives_the_way(ack in any::<Option<u64>>(), name in ".*", n in any::<i64>()) {
        let arg = raw(&n.to_string());
        let text = Packet::Event { ack, name: Cow::Borrowed(&name), args: vec![&arg] }.text();
        let Packet::Event { ack: ack2, name: name2, args } = Packet::parse(&text).expect("its own text") else {
            return Err(TestCaseError::fail("not an event"));
        };
        prop_assert_eq!((ack2, &*name2, args[0].get()), (ack, name.as_str(), arg.get()));
    }
}
