//! What `rtx spec` writes: a config.json to start from. Layout, order and values are those of `runc spec`, because
//! scripts edit the result with sed; only the hostname is our own.

/// The document with a mark wherever the rootless form differs.
const TEMPLATE: &str = include_str!("spec_template.json.in");

const RESOURCES: &str = r#"		"resources": {
			"devices": [
				{
					"allow": false,
					"access": "rwm"
				}
			]
		},
"#;

const NETWORK: &str = r#"			{
				"type": "network"
			},
"#;

const USER: &str = r#",
			{
				"type": "user"
			}"#;

const CGROUP: &str = r#",
			{
				"type": "cgroup"
			}"#;

/// The default config.json; with the caller's uid and gid, the one for a container of an ordinary user. `unified` is for a
/// host that has cgroup v2 alone. No newline at the end, as runc has it.
pub fn spec(rootless: Option<(u32, u32)>, unified: bool) -> String {
    let text = TEMPLATE.replace("@VERSION@", crate::OCI_VERSION);
    let text = text.replace("@CGROUP@", if unified { CGROUP } else { "" });
    let marks: [(&str, String); 7] = match rootless {
        None => [
            ("@GID5@", ",\n\t\t\t\t\"gid=5\"".into()),
            ("@SYSTYPE@", "sysfs".into()),
            ("@SYSSOURCE@", "sysfs".into()),
            ("@SYSBIND@", String::new()),
            ("@RESOURCES@", RESOURCES.into()),
            ("@NETWORK@", NETWORK.into()),
            ("@USER@", String::new()),
        ],
        // One mapped id: group 5 (tty) does not exist in there, and sysfs belongs to the host's network namespace,
        // which an ordinary user cannot mount anew.
        Some((uid, gid)) => [
            ("@GID5@", String::new()),
            ("@SYSTYPE@", "none".into()),
            ("@SYSSOURCE@", "/sys".into()),
            ("@SYSBIND@", "\n\t\t\t\t\"rbind\",".into()),
            ("@RESOURCES@", mapping("uidMappings", uid) + &mapping("gidMappings", gid)),
            ("@NETWORK@", String::new()),
            ("@USER@", USER.into()),
        ],
    };
    marks.into_iter().fold(text, |text, (mark, put)| text.replace(mark, &put))
}

fn mapping(property: &str, host_id: u32) -> String {
    format!(
        "\t\t\"{property}\": [\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {host_id},\n\t\t\t\t\"size\": 1\n\t\t\t}}\n\t\t],\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn sum(text: String) -> String {
        Sha256::digest(text.replace("\"rtx\"", "\"runc\"")).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The sums are those of the files that `runc spec` and `runc spec --rootless` (run as root) of runc 1.5.1 write.
    #[test]
    fn byte_for_byte_as_runc() {
        assert_eq!(sum(spec(None, false)), "fae353a9c6447ab67d306c25bf2d6c8e93df5a8504bebb0b08738068f5e55330");
        assert_eq!(sum(spec(Some((0, 0)), false)), "cb410bbe4aaae5b2b0109e5912c3f01fda753a3c51beee9861604197f7da5677");
    }

    #[test]
    fn both_forms_are_without_findings() {
        for text in [spec(None, false), spec(Some((1000, 100)), true)] {
            let value = serde_json::from_str(&text).unwrap();
            assert_eq!(crate::config::check::check(&value, None), []);
            serde_json::from_value::<oci_spec::runtime::Spec>(value).unwrap();
        }
    }

    #[test]
    fn rootless_maps_the_caller() {
        let value: serde_json::Value = serde_json::from_str(&spec(Some((1000, 100)), true)).unwrap();
        assert_eq!(value["linux"]["uidMappings"][0]["hostID"], 1000);
        assert_eq!(value["linux"]["gidMappings"][0]["hostID"], 100);
    }
}
