//! Texts of rules: any bytes, and words of the language in any order. What is read must be printed in one form that reads
//! the same, and mean the same as its tables.

use evenkeel_config::{Plan, parse, rules};

/// Words of the language and what may stand between them; a byte of the input chooses one.
const WORDS: [&str; 64] = [
    "\nflow",
    "\noutflow",
    "\nset",
    "\ndirector",
    "\nservice network",
    "\n ip route",
    "\n ip address",
    "\n",
    " permit",
    " deny",
    " skip",
    " director web",
    " table 200",
    " match",
    " ignore",
    " not",
    " iface",
    " eth0",
    " eth1",
    " proto",
    " tcp",
    " udp",
    " icmp",
    " src",
    " dst",
    " 10.0.0.0/8",
    " 192.0.2.7",
    " 192.0.2.0/255.255.255.0",
    " fc00::/7",
    " @net",
    " @web",
    " srcport",
    " dstport",
    " 80",
    " 80:90",
    " 90:80",
    ",443",
    " icmptype",
    " 8",
    " tcpflags",
    " syn/syn,ack",
    " dscp",
    " ef",
    " limit",
    " 9/s",
    " burst",
    " per",
    " src/24",
    " comment",
    " \"a # b\"",
    " \"",
    " # c",
    " a",
    " b",
    " net",
    " web",
    " default",
    " 192.168.161.1",
    " table",
    " 200",
    " server",
    " weight",
    " balance",
    " leastconn",
];

/// What the rules stand in.
const AROUND: &str = "[interface.eth0]\nkind = 'tun'\naddress = ['192.168.161.9/24']\n[interface.eth1]\nkind = 'tun'\n\
                      [[route]]\nto = '0.0.0.0/0'\ninterface = 'eth0'\n[[route]]\nto = '0.0.0.0/0'\ninterface = 'eth1'\n\
                      table = 200\n[director.web]\nserver = [{ name = 's', address = '10.0.3.20' }]\n";

/// Reads the text in `data`: as it is when its first byte is even, else word by word.
///
/// # Panics
/// When what is printed reads otherwise, or the tables of a text mean something else than the text.
pub fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let text = if first % 2 == 0 {
        String::from_utf8_lossy(rest).into_owned()
    } else {
        rest.iter().filter_map(|byte| WORDS.get(usize::from(*byte) % WORDS.len()).copied()).collect()
    };
    let Ok(printed) = rules::format(&text, "fuzz") else { return };
    assert_eq!(
        rules::format(&printed, "fuzz").ok().as_ref(),
        Some(&printed),
        "printing again changes something"
    );
    let Some(plan) = plan_of(&text) else { return };
    assert_eq!(plan_of(&printed).as_ref(), Some(&plan), "what is printed means something else:\n{printed}");
    let Ok((tables, _)) = rules::to_tables(&text, "fuzz") else { return };
    // What services say of interfaces stays text.
    if !text.contains("ip address") {
        let by_tables = parse(&format!("{AROUND}{tables}"), "fuzz.toml").ok().map(|loaded| loaded.plan);
        assert_eq!(
            by_tables.map(|plan| plan.policies),
            Some(plan.policies),
            "tables mean something else:\n{tables}"
        );
    }
}

fn plan_of(text: &str) -> Option<Plan> {
    if text.contains("'''")
        || text.contains('\r')
        || text.chars().any(|one| one.is_control() && one != '\n' && one != '\t')
    {
        return None;
    }
    parse(&format!("{AROUND}[policy]\nrules = '''\n{text}'''\n"), "fuzz.toml").ok().map(|loaded| loaded.plan)
}
