//! What a route needs, and what each role has.

/// What a route needs of its caller. A route has exactly one, in the table of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Nothing: probes.
    Open,
    /// To be somebody that the server knows.
    Known,
    /// To look at what one knows the id of.
    Look,
    /// To read everything.
    Read,
    /// To add work, to tell it something and to call it off again.
    Produce,
    /// To take work and say how it ended.
    Work,
    /// To change what is there, and how it is handled.
    Operate,
    /// To take everything away.
    Admin,
}

impl Right {
    /// All of them.
    pub const ALL: [Right; 8] = [
        Right::Open,
        Right::Known,
        Right::Look,
        Right::Read,
        Right::Produce,
        Right::Work,
        Right::Operate,
        Right::Admin,
    ];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            Right::Open => "open",
            Right::Known => "known",
            Right::Look => "look",
            Right::Read => "read",
            Right::Produce => "produce",
            Right::Work => "work",
            Right::Operate => "operate",
            Right::Admin => "admin",
        }
    }
}

/// What a token is for. It may have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May do everything.
    Admin,
    /// Runs the pond: reads, changes and adds, but takes no work.
    Operator,
    /// Adds work and follows it.
    Producer,
    /// Does work.
    Worker,
    /// Changes nothing.
    ReadOnly,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 5] = [Role::Admin, Role::Operator, Role::Producer, Role::Worker, Role::ReadOnly];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Operator => "operator",
            Role::Producer => "producer",
            Role::Worker => "worker",
            Role::ReadOnly => "read-only",
        }
    }

    /// Whether a token of this role alone may take a route that needs `right`.
    pub const fn has(self, right: Right) -> bool {
        use Right::{Admin, Known, Look, Open, Operate, Produce, Read, Work};
        match right {
            Open | Known | Look => true,
            Read => matches!(self, Role::Admin | Role::Operator | Role::ReadOnly),
            Produce => matches!(self, Role::Admin | Role::Operator | Role::Producer),
            Work => matches!(self, Role::Admin | Role::Worker),
            Operate => matches!(self, Role::Admin | Role::Operator),
            Admin => matches!(self, Role::Admin),
        }
    }
}
