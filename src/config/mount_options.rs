//! The options of a mount (runtime-spec config.md "Mounts", config-linux.md "Linux mount options"): one table from name
//! to effect, and the fold of a list of options into the flags of mount_setattr(2), fsconfig(2) and mount(2).

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME,
};

/// Linux 5.14, missing in the libc crate.
const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;
/// linux/fs.h SB_I_VERSION as mount(2) takes it; libc names it MS_I_VERSION.
const MS_I_VERSION: u64 = libc::MS_I_VERSION;
const MS_LAZYTIME: u64 = 1 << 25;

/// `bind` or `rbind` was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The whole tree below the source, not only its topmost mount.
    pub recursive: bool,
}

/// A list of mount options, taken apart. Of options that contradict each other the later one holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `MOUNT_ATTR_*` to set on the mount itself.
    pub attr_set: u64,
    /// `MOUNT_ATTR_*` to clear. Contains all of `MOUNT_ATTR__ATIME` whenever an atime mode was chosen: the mode is a
    /// field and not a bit, and mount_setattr(2) wants it cleared as a whole.
    pub attr_clear: u64,
    /// The same for the `r*` options, which mount_setattr(2) applies with `AT_RECURSIVE`.
    pub rec_set: u64,
    pub rec_clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, in the order given, and whether recursive.
    pub propagation: Vec<(u64, bool)>,
    /// Superblock flags by the names that fsconfig(2) FSCONFIG_SET_FLAG takes. `ro` stands here *and* in `attr_set`:
    /// on a new file system it is both, on a bind only the mount's attribute counts.
    pub sb_flags: Vec<&'static str>,
    /// The same as `MS_*` for mount(2), and with those that only mount(2) has (`MS_SILENT`, `MS_I_VERSION`).
    pub sb_ms_flags: u64,
    /// Set by `bind` and `rbind`.
    pub bind: Option<Bind>,
    /// Set by `idmap` (false) and `ridmap` (true).
    pub idmap: Option<bool>,
    /// The ranges of `idmap=…`, as crun has it.
    pub idmap_ranges: Option<String>,
    /// `src-nofollow`: a source that is a symbolic link is bound itself (crun).
    pub src_nofollow: bool,
    /// `dest-nofollow`: a destination that is a symbolic link is covered itself (crun).
    pub dest_nofollow: bool,
    /// `copy-symlink`: a source that is a symbolic link is made anew at the destination (crun).
    pub copy_symlink: bool,
    /// `remount`: change an existing mount instead of making one.
    pub remount: bool,
    /// `tmpcopyup`: a new tmpfs starts with what the root file system has at its place.
    pub tmpcopyup: bool,
    /// All other options, for the file system: key and, after `=`, value.
    pub data: Vec<(String, Option<String>)>,
}

/// What one option does.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Nothing,
    Set(u64),
    Clear(u64),
    /// Choose this atime mode.
    Atime(u64),
    /// Back to the kernel's default mode (relatime), if this mode was chosen before.
    NotAtime(u64),
    RecSet(u64),
    RecClear(u64),
    RecAtime(u64),
    RecNotAtime(u64),
    ReadOnly(bool),
    Sb(&'static str, u64),
    NotSb(&'static str, u64),
    Propagation(u64, bool),
    Bind(bool),
    Remount,
    TmpCopyUp,
    Idmap(bool),
    SrcNoFollow,
    DestNoFollow,
    CopySymlink,
}

const RELATIME: u64 = libc::MOUNT_ATTR_RELATIME;

/// Every option with a meaning of its own, sorted by name.
const TABLE: &[(&str, Effect)] = &[
    ("async", Effect::NotSb("sync", libc::MS_SYNCHRONOUS)),
    ("atime", Effect::NotAtime(MOUNT_ATTR_NOATIME)),
    ("bind", Effect::Bind(false)),
    ("copy-symlink", Effect::CopySymlink),
    ("defaults", Effect::Nothing),
    ("dest-nofollow", Effect::DestNoFollow),
    ("dev", Effect::Clear(MOUNT_ATTR_NODEV)),
    ("diratime", Effect::Clear(MOUNT_ATTR_NODIRATIME)),
    ("dirsync", Effect::Sb("dirsync", libc::MS_DIRSYNC)),
    ("exec", Effect::Clear(MOUNT_ATTR_NOEXEC)),
    ("idmap", Effect::Idmap(false)),
    ("iversion", Effect::Sb("", MS_I_VERSION)),
    ("lazytime", Effect::Sb("lazytime", MS_LAZYTIME)),
    ("loud", Effect::NotSb("", libc::MS_SILENT)),
    ("mand", Effect::Sb("mand", libc::MS_MANDLOCK)),
    ("noatime", Effect::Atime(MOUNT_ATTR_NOATIME)),
    ("nodev", Effect::Set(MOUNT_ATTR_NODEV)),
    ("nodiratime", Effect::Set(MOUNT_ATTR_NODIRATIME)),
    ("noexec", Effect::Set(MOUNT_ATTR_NOEXEC)),
    ("noiversion", Effect::NotSb("", MS_I_VERSION)),
    ("nolazytime", Effect::NotSb("lazytime", MS_LAZYTIME)),
    ("nomand", Effect::NotSb("mand", libc::MS_MANDLOCK)),
    // Without MS_RELATIME mount(2) still takes relatime as the default, so there is nothing to do.
    ("norelatime", Effect::Nothing),
    ("nostrictatime", Effect::NotAtime(MOUNT_ATTR_STRICTATIME)),
    ("nosuid", Effect::Set(MOUNT_ATTR_NOSUID)),
    ("nosymfollow", Effect::Set(MOUNT_ATTR_NOSYMFOLLOW)),
    ("private", Effect::Propagation(libc::MS_PRIVATE, false)),
    ("ratime", Effect::RecNotAtime(MOUNT_ATTR_NOATIME)),
    ("rbind", Effect::Bind(true)),
    ("rdev", Effect::RecClear(MOUNT_ATTR_NODEV)),
    ("rdiratime", Effect::RecClear(MOUNT_ATTR_NODIRATIME)),
    ("relatime", Effect::Atime(RELATIME)),
    ("remount", Effect::Remount),
    ("rexec", Effect::RecClear(MOUNT_ATTR_NOEXEC)),
    ("ridmap", Effect::Idmap(true)),
    ("rnoatime", Effect::RecAtime(MOUNT_ATTR_NOATIME)),
    ("rnodev", Effect::RecSet(MOUNT_ATTR_NODEV)),
    ("rnodiratime", Effect::RecSet(MOUNT_ATTR_NODIRATIME)),
    ("rnoexec", Effect::RecSet(MOUNT_ATTR_NOEXEC)),
    ("rnorelatime", Effect::Nothing),
    ("rnostrictatime", Effect::RecNotAtime(MOUNT_ATTR_STRICTATIME)),
    ("rnosuid", Effect::RecSet(MOUNT_ATTR_NOSUID)),
    ("rnosymfollow", Effect::RecSet(MOUNT_ATTR_NOSYMFOLLOW)),
    ("ro", Effect::ReadOnly(true)),
    ("rprivate", Effect::Propagation(libc::MS_PRIVATE, true)),
    ("rrelatime", Effect::RecAtime(RELATIME)),
    ("rro", Effect::RecSet(MOUNT_ATTR_RDONLY)),
    ("rrw", Effect::RecClear(MOUNT_ATTR_RDONLY)),
    ("rshared", Effect::Propagation(libc::MS_SHARED, true)),
    ("rslave", Effect::Propagation(libc::MS_SLAVE, true)),
    ("rstrictatime", Effect::RecAtime(MOUNT_ATTR_STRICTATIME)),
    ("rsuid", Effect::RecClear(MOUNT_ATTR_NOSUID)),
    ("rsymfollow", Effect::RecClear(MOUNT_ATTR_NOSYMFOLLOW)),
    ("runbindable", Effect::Propagation(libc::MS_UNBINDABLE, true)),
    ("rw", Effect::ReadOnly(false)),
    ("shared", Effect::Propagation(libc::MS_SHARED, false)),
    ("silent", Effect::Sb("", libc::MS_SILENT)),
    ("slave", Effect::Propagation(libc::MS_SLAVE, false)),
    ("src-nofollow", Effect::SrcNoFollow),
    ("strictatime", Effect::Atime(MOUNT_ATTR_STRICTATIME)),
    ("suid", Effect::Clear(MOUNT_ATTR_NOSUID)),
    ("symfollow", Effect::Clear(MOUNT_ATTR_NOSYMFOLLOW)),
    ("sync", Effect::Sb("sync", libc::MS_SYNCHRONOUS)),
    ("tmpcopyup", Effect::TmpCopyUp),
    ("unbindable", Effect::Propagation(libc::MS_UNBINDABLE, false)),
];

/// The names of all options with a meaning of their own, sorted, for `rtx features`.
pub const NAMES: &[&str] = &{
    let mut names = [""; TABLE.len()];
    let mut at = 0;
    while at < TABLE.len() {
        names[at] = TABLE[at].0;
        at += 1;
    }
    names
};

/// Where in the table the names begin with each letter: most options of most mounts are none of them, or the only one.
const BEGIN: [usize; 27] = {
    let mut begin = [0; 27];
    let mut letter = 0;
    while letter < begin.len() {
        let mut at = 0;
        while at < TABLE.len() && TABLE[at].0.as_bytes()[0] < b'a' + letter as u8 {
            at += 1;
        }
        begin[letter] = at;
        letter += 1;
    }
    begin
};

fn find(option: &str) -> Option<Effect> {
    let letter = usize::from(option.bytes().next()?.checked_sub(b'a')?);
    let (begin, end) = (BEGIN.get(letter)?, BEGIN.get(letter + 1)?);
    TABLE[*begin..*end].iter().find(|(name, _)| *name == option).map(|(_, effect)| *effect)
}

/// Takes a list of mount options apart. What is not in the table is the file system's.
pub fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> MountOptions {
    let mut parsed = MountOptions::default();
    for option in options {
        parsed.add(option);
    }
    parsed
}

impl MountOptions {
    fn add(&mut self, option: &str) {
        match find(option) {
            Some(effect) => self.apply(effect),
            None => match option.strip_prefix("idmap=") {
                Some(ranges) => {
                    self.idmap = Some(self.idmap.unwrap_or(false));
                    self.idmap_ranges = Some(ranges.to_owned());
                }
                None => self.add_data(option),
            },
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Set(bit) => set(&mut self.attr_set, &mut self.attr_clear, bit),
            Effect::Clear(bit) => set(&mut self.attr_clear, &mut self.attr_set, bit),
            Effect::Atime(mode) => atime(&mut self.attr_set, &mut self.attr_clear, mode),
            Effect::NotAtime(mode) => not_atime(&mut self.attr_set, &mut self.attr_clear, mode),
            Effect::RecSet(bit) => set(&mut self.rec_set, &mut self.rec_clear, bit),
            Effect::RecClear(bit) => set(&mut self.rec_clear, &mut self.rec_set, bit),
            Effect::RecAtime(mode) => atime(&mut self.rec_set, &mut self.rec_clear, mode),
            Effect::RecNotAtime(mode) => not_atime(&mut self.rec_set, &mut self.rec_clear, mode),
            Effect::ReadOnly(true) => {
                set(&mut self.attr_set, &mut self.attr_clear, MOUNT_ATTR_RDONLY);
                self.superblock("ro", libc::MS_RDONLY, true);
            }
            Effect::ReadOnly(false) => {
                set(&mut self.attr_clear, &mut self.attr_set, MOUNT_ATTR_RDONLY);
                self.superblock("ro", libc::MS_RDONLY, false);
            }
            Effect::Sb(name, flag) => self.superblock(name, flag, true),
            Effect::NotSb(name, flag) => self.superblock(name, flag, false),
            Effect::Propagation(kind, recursive) => self.propagation.push((kind, recursive)),
            // "rbind" stays recursive even when "bind" follows: the two are flags that add up, as in runc.
            Effect::Bind(recursive) => {
                let recursive = recursive || self.bind.is_some_and(|bind| bind.recursive);
                self.bind = Some(Bind { recursive });
            }
            Effect::Remount => self.remount = true,
            Effect::TmpCopyUp => self.tmpcopyup = true,
            Effect::Idmap(recursive) => self.idmap = Some(recursive),
            Effect::SrcNoFollow => self.src_nofollow = true,
            Effect::DestNoFollow => self.dest_nofollow = true,
            Effect::CopySymlink => self.copy_symlink = true,
        }
    }

    fn superblock(&mut self, name: &'static str, flag: u64, on: bool) {
        self.sb_flags.retain(|present| *present != name);
        self.sb_ms_flags &= !flag;
        if on {
            self.sb_ms_flags |= flag;
            if !name.is_empty() {
                self.sb_flags.push(name);
            }
        }
    }

    /// mount(2) would get all options in one string with commas between them, so an entry with commas is several
    /// options; but a comma inside quotes (SELinux contexts) or behind a backslash (overlay's paths) belongs to the value.
    fn add_data(&mut self, entry: &str) {
        let (mut quoted, mut escaped, mut start) = (false, false, 0);
        for (at, byte) in entry.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = !quoted,
                b',' if !quoted => {
                    self.add_one(&entry[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        self.add_one(&entry[start..]);
    }

    fn add_one(&mut self, option: &str) {
        if option.is_empty() {
            return;
        }
        self.data.push(match option.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (option.to_owned(), None),
        });
    }
}

fn set(to: &mut u64, from: &mut u64, bit: u64) {
    *to |= bit;
    *from &= !bit;
}

fn atime(set: &mut u64, clear: &mut u64, mode: u64) {
    *clear |= MOUNT_ATTR__ATIME;
    *set = (*set & !MOUNT_ATTR__ATIME) | mode;
}

fn not_atime(set: &mut u64, clear: &mut u64, mode: u64) {
    let chosen = *clear & MOUNT_ATTR__ATIME != 0;
    if !chosen || *set & MOUNT_ATTR__ATIME == mode {
        atime(set, clear, RELATIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> MountOptions {
        parse(options.iter().copied())
    }

    #[test]
    fn the_table_is_sorted_and_complete() {
        assert!(NAMES.is_sorted());
        assert!(NAMES.iter().all(|name| find(name).is_some()));
        for other in ["", "z", "zz", "{", "Ro", "\u{e4}", "r", "rooo", "_", "~"] {
            assert!(find(other).is_none(), "{other}");
        }
        // What runc 1.5.1 lists in its features, the two names of idmapped mounts, and crun's own three.
        assert_eq!(NAMES.len(), 60 + 2 + 3);
    }

    #[test]
    fn the_later_option_holds() {
        let options = of(&["ro", "nosuid", "suid", "rw", "noexec", "exec", "noexec"]);
        assert_eq!(options.attr_set, MOUNT_ATTR_NOEXEC);
        assert_eq!(options.attr_clear, MOUNT_ATTR_NOSUID | MOUNT_ATTR_RDONLY);
        assert_eq!((options.sb_flags.len(), options.sb_ms_flags), (0, 0));
    }

    #[test]
    fn read_only_is_of_the_mount_and_of_the_file_system() {
        let options = of(&["rw", "sync", "ro"]);
        assert_eq!(options.attr_set, MOUNT_ATTR_RDONLY);
        assert_eq!(options.sb_flags, ["sync", "ro"]);
        assert_eq!(options.sb_ms_flags, libc::MS_RDONLY | libc::MS_SYNCHRONOUS);
    }

    #[test]
    fn atime_is_a_field() {
        let options = of(&["strictatime", "noatime"]);
        assert_eq!((options.attr_set, options.attr_clear), (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME));
        let options = of(&["noatime", "relatime"]);
        assert_eq!((options.attr_set, options.attr_clear), (0, MOUNT_ATTR__ATIME));
        let options = of(&["strictatime", "atime"]);
        assert_eq!((options.attr_set, options.attr_clear), (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME));
        let options = of(&["noatime", "atime", "nodiratime"]);
        assert_eq!((options.attr_set, options.attr_clear), (MOUNT_ATTR_NODIRATIME, MOUNT_ATTR__ATIME));
        let options = of(&["rnoatime"]);
        assert_eq!((options.rec_set, options.rec_clear), (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME));
        assert_eq!((options.attr_set, options.attr_clear), (0, 0));
    }

    #[test]
    fn recursive_attributes_are_apart() {
        let options = of(&["rbind", "rro", "rnosuid", "rdev", "rrw"]);
        assert_eq!(options.bind, Some(Bind { recursive: true }));
        assert_eq!(options.rec_set, MOUNT_ATTR_NOSUID);
        assert_eq!(options.rec_clear, MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY);
        assert_eq!(of(&["rbind", "bind"]).bind, Some(Bind { recursive: true }));
        assert_eq!(of(&["bind"]).bind, Some(Bind { recursive: false }));
    }

    #[test]
    fn data_keeps_its_order_and_its_commas() {
        let options = of(&["mode=755,size=65536k", "newinstance", "context=\"a,b\"", r"lowerdir=/a\,b:/c", ""]);
        let data: Vec<_> = options.data.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
        assert_eq!(
            data,
            [
                ("mode", Some("755")),
                ("size", Some("65536k")),
                ("newinstance", None),
                ("context", Some("\"a,b\"")),
                ("lowerdir", Some(r"/a\,b:/c")),
            ]
        );
    }

    #[test]
    fn propagation_keeps_its_order() {
        let options = of(&["rprivate", "shared"]);
        assert_eq!(options.propagation, [(libc::MS_PRIVATE, true), (libc::MS_SHARED, false)]);
        assert!(of(&["remount"]).remount && of(&["tmpcopyup"]).tmpcopyup);
    }
}
