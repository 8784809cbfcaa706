//! The palette: every line is seen on its ground, and any two of them are told apart, by people who do not see
//! all colours as well.

use super::super::STYLE;

type Rgb = [f64; 3];

/// Colours of a name like `--s` in order, for the light page and the dark one.
fn palette(name: &str, first: u32, count: u32) -> [Vec<Rgb>; 2] {
    let all = |number: u32| {
        let key = format!("{name}{number}: #");
        let found: Vec<Rgb> = STYLE.split(&key).skip(1).map(|rest| colour(&rest[..6])).collect();
        assert_eq!(found.len(), 3, "{key} in the light, the dark and the printed page");
        assert_eq!(found[0], found[2], "paper is light");
        found
    };
    let both: Vec<Vec<Rgb>> = (first..first + count).map(all).collect();
    [0, 1].map(|which| both.iter().map(|colours| colours[which]).collect())
}

/// A colour in linear light.
fn colour(hex: &str) -> Rgb {
    [0, 2, 4].map(|at| {
        let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
        if value <= 0.040_45 { value / 12.92 } else { libm::pow((value + 0.055) / 1.055, 2.4) }
    })
}

fn luminance([red, green, blue]: Rgb) -> f64 {
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

/// The contrast of WCAG 2.2.
fn contrast(one: Rgb, other: Rgb) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

/// How someone sees a colour (G. M. Machado, M. M. Oliveira, L. Fernandes, 2009, severity 1): everything, no
/// red, no green, no blue.
const SIGHTS: [[[f64; 3]; 3]; 4] = [
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    [
        [0.152_286, 1.052_583, -0.204_868],
        [0.114_503, 0.786_281, 0.099_216],
        [-0.003_882, -0.048_116, 1.051_998],
    ],
    [
        [0.367_322, 0.860_646, -0.227_968],
        [0.280_085, 0.672_501, 0.047_413],
        [-0.011_820, 0.042_940, 0.968_881],
    ],
    [
        [1.255_528, -0.076_749, -0.178_779],
        [-0.078_411, 0.930_809, 0.147_602],
        [0.004_733, 0.691_367, 0.303_900],
    ],
];

/// The place of a colour in Oklab, where distances are as large as they look.
fn place(colour: Rgb, sight: [[f64; 3]; 3]) -> Rgb {
    let mix = |row: [f64; 3], of: Rgb| row[0] * of[0] + row[1] * of[1] + row[2] * of[2];
    let seen = sight.map(|row| mix(row, colour).max(0.0));
    let cones = [
        [0.412_221_470_8, 0.536_332_536_3, 0.051_445_992_9],
        [0.211_903_498_2, 0.680_699_545_1, 0.107_396_956_6],
        [0.088_302_461_9, 0.281_718_837_6, 0.629_978_700_5],
    ]
    .map(|row| libm::cbrt(mix(row, seen)));
    [
        [0.210_454_255_3, 0.793_617_785_0, -0.004_072_046_8],
        [1.977_998_495_1, -2.428_592_205_0, 0.450_593_709_9],
        [0.025_904_037_1, 0.782_771_766_2, -0.808_675_766_0],
    ]
    .map(|row| mix(row, cones))
}

#[test]
fn every_line_is_seen_on_its_ground() {
    let grounds = ["ffffff", "1b1f24"].map(colour);
    for (colours, ground) in palette("--s", 1, 8).into_iter().zip(grounds) {
        for (colour, number) in colours.into_iter().zip(1..) {
            // WCAG 2.2, 1.4.11: graphics.
            assert!(contrast(colour, ground) >= 3.0, "{number}: {}", contrast(colour, ground));
        }
    }
}

#[test]
fn any_two_lines_are_told_apart_by_everyone() {
    for colours in palette("--s", 1, 8) {
        for sight in SIGHTS {
            for (first, one) in colours.iter().enumerate() {
                for (second, other) in colours.iter().enumerate().skip(first + 1) {
                    let (one, other) = (place(*one, sight), place(*other, sight));
                    let squares: f64 =
                        one.iter().zip(other).map(|(one, other)| (one - other) * (one - other)).sum();
                    assert!(
                        libm::sqrt(squares) >= 0.07,
                        "{} {}: {}",
                        first + 1,
                        second + 1,
                        libm::sqrt(squares)
                    );
                }
            }
        }
    }
}

#[test]
fn shades_grow_from_the_ground() {
    let [light, dark] = palette("--h", 0, 9);
    let lights: Vec<f64> = light.into_iter().map(|colour| place(colour, SIGHTS[0])[0]).collect();
    assert!(lights.windows(2).all(|pair| pair[0] - pair[1] > 0.03), "{lights:?}");
    let darks: Vec<f64> = dark.into_iter().map(|colour| place(colour, SIGHTS[0])[0]).collect();
    assert!(darks.windows(2).all(|pair| pair[1] - pair[0] > 0.03), "{darks:?}");
}

#[test]
fn words_are_read_on_their_ground() {
    let value = |key: &str| -> [Rgb; 2] {
        let found: Vec<Rgb> =
            STYLE.split(&format!("{key}: #")).skip(1).map(|rest| colour(&rest[..6])).collect();
        [found[0], found[1]]
    };
    for (text, ground) in [
        ("--ink", "--paper"),
        ("--ink", "--card"),
        ("--muted", "--paper"),
        ("--muted", "--card"),
        ("--accent", "--paper"),
        ("--good", "--good-paper"),
        ("--bad", "--bad-paper"),
        ("--ink", "--good-paper"),
        ("--muted", "--good-paper"),
    ] {
        for (text_colour, ground_colour) in value(text).into_iter().zip(value(ground)) {
            // WCAG 2.2, 1.4.3: text.
            let found = contrast(text_colour, ground_colour);
            assert!(found >= 4.5, "{text} on {ground}: {found}");
        }
    }
}
