//! Sizes that all screens share, in points.

/// Distances. A screen uses these and no others, so that edges line up.
pub mod space {
    /// Between parts of one thing.
    pub const XS: f32 = 4.0;
    /// Between things of one group.
    pub const SM: f32 = 8.0;
    /// Inside cards, between groups.
    pub const MD: f32 = 12.0;
    /// Between cards and the window's edge.
    pub const LG: f32 = 16.0;
    /// Around an empty state.
    pub const XL: f32 = 32.0;
}

/// Corner radii.
pub mod radius {
    /// Buttons, fields, chips.
    pub const CONTROL: u8 = 5;
    /// Cards and plots.
    pub const CARD: u8 = 8;
    /// Windows and menus.
    pub const WINDOW: u8 = 10;
}

/// Widths and heights.
pub mod size {
    /// Height of a control.
    pub const CONTROL: f32 = 26.0;
    /// Height of the button that a screen is about.
    pub const PRIMARY: f32 = 36.0;
    /// Width of the navigation rail.
    pub const RAIL: f32 = 76.0;
    /// Width of the column of labels before fields.
    pub const LABEL: f32 = 104.0;
    /// Most width of a choice in a row.
    pub const CHOICE: f32 = 380.0;
    /// Side of an icon.
    pub const ICON: f32 = 16.0;
    /// Height of meters and progress bars.
    pub const METER: f32 = 8.0;
    /// Width of the axis labels of a plot, the same for all, so that linked plots line up.
    pub const PLOT_AXIS: f32 = 46.0;
}

/// Font sizes.
pub mod font {
    /// Captions, axis labels.
    pub const SMALL: f32 = 11.5;
    /// Running text and controls.
    pub const BODY: f32 = 13.5;
    /// Titles of screens.
    pub const HEADING: f32 = 19.0;
    /// Numbers that a card is about.
    pub const METRIC: f32 = 22.0;
    /// Logs and samples.
    pub const MONO: f32 = 12.5;
}
