//! A table of connections that keeps those which were used last.

const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The connection, or none where it is over and nobody has told the table.
    connection: u32,
    server: u16,
    newer: u32,
    older: u32,
}

/// Servers of connections, by the number of the connection.
#[derive(Debug)]
pub struct Lru {
    most: usize,
    nodes: Vec<Node>,
    free: Vec<u32>,
    /// The node of each connection.
    places: Vec<u32>,
    newest: u32,
    oldest: u32,
}

impl Lru {
    pub fn new(most: usize) -> Self {
        Self { most, nodes: Vec::new(), free: Vec::new(), places: Vec::new(), newest: NIL, oldest: NIL }
    }

    /// The server of a connection, which counts as used.
    pub fn find(&mut self, connection: u32) -> Option<u16> {
        let place = self.place(connection)?;
        self.unlink(place);
        self.link(place);
        Some(self.nodes[place as usize].server)
    }

    /// Notes the server of a connection that is not there; the one that was not used for longest gives way.
    pub fn insert(&mut self, connection: u32, server: u16) {
        let node = Node { connection, server, newer: NIL, older: NIL };
        let place = if let Some(place) = self.free.pop() {
            place
        } else if self.nodes.len() < self.most {
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        } else {
            let place = self.oldest;
            self.unlink(place);
            self.forget(self.nodes[place as usize].connection);
            place
        };
        self.nodes[place as usize] = node;
        self.link(place);
        if self.places.len() <= connection as usize {
            self.places.resize(connection as usize + 1, NIL);
        }
        self.places[connection as usize] = place;
    }

    /// A connection has ended.
    pub fn remove(&mut self, connection: u32) {
        let Some(place) = self.place(connection) else { return };
        self.unlink(place);
        self.forget(connection);
        self.free.push(place);
    }

    /// A connection has ended without a word: its entry stays until it is the oldest.
    pub fn orphan(&mut self, connection: u32) {
        if let Some(place) = self.place(connection) {
            self.nodes[place as usize].connection = NIL;
            self.forget(connection);
        }
    }

    fn place(&self, connection: u32) -> Option<u32> {
        self.places.get(connection as usize).copied().filter(|place| *place != NIL)
    }

    fn forget(&mut self, connection: u32) {
        if let Some(place) = self.places.get_mut(connection as usize) {
            *place = NIL;
        }
    }

    fn link(&mut self, place: u32) {
        let before = std::mem::replace(&mut self.newest, place);
        self.nodes[place as usize].newer = NIL;
        self.nodes[place as usize].older = before;
        match before {
            NIL => self.oldest = place,
            before => self.nodes[before as usize].newer = place,
        }
    }

    fn unlink(&mut self, place: u32) {
        let Node { newer, older, .. } = self.nodes[place as usize];
        match newer {
            NIL => self.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
        match older {
            NIL => self.oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
    }
}

#[test]
fn the_connection_that_was_not_used_for_longest_gives_way() {
    let mut lru = Lru::new(2);
    lru.insert(1, 10);
    lru.insert(2, 20);
    assert_eq!(lru.find(1), Some(10));
    lru.insert(3, 30);
    assert_eq!([1, 2, 3].map(|connection| lru.find(connection)), [Some(10), None, Some(30)]);
    // An orphan takes its place until it is the oldest.
    lru.orphan(1);
    lru.insert(4, 40);
    assert_eq!([1, 3, 4].map(|connection| lru.find(connection)), [None, Some(30), Some(40)]);
    lru.remove(3);
    lru.insert(5, 50);
    assert_eq!([4, 5].map(|connection| lru.find(connection)), [Some(40), Some(50)]);
}
