//! How the page of the example looks in Chromium, where it is installed: pictures of the light and the dark
//! page are looked at for what must be there, and the script must have run under the page's own policy.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::super::example;
use super::*;

const WIDTH: usize = 1_240;
const HEIGHT: usize = 4_200;

/// A browser, in the variable `CHROMIUM` or by a name under which it is known.
fn browser() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let known = ["chromium", "chromium-browser", "google-chrome", "chrome"].map(PathBuf::from);
    named.into_iter().chain(known).find(|name| {
        let version =
            Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    })
}

/// A folder of this test alone, which it leaves behind as little as its pictures.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("evenkeel-page-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(browser: &Path, folder: &Folder, arguments: &[String]) -> String {
    let profile = folder.0.join("profile");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--timeout=60000"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(arguments)
        .arg(format!("file://{}", folder.0.join("page.html").display()))
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "the browser ends with {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A picture as three bytes for each point.
struct Picture(Vec<u8>);

impl Picture {
    fn take(browser: &Path, folder: &Folder, is_dark: bool) -> Self {
        let file = folder.0.join("page.png");
        let scheme = if is_dark { 0 } else { 1 };
        run(
            browser,
            folder,
            &[
                format!("--blink-settings=preferredColorScheme={scheme}"),
                format!("--window-size={WIDTH},{HEIGHT}"),
                format!("--screenshot={}", file.display()),
            ],
        );
        if let Some(keep) = std::env::var_os("PICTURES") {
            let name = if is_dark { "dark.png" } else { "light.png" };
            std::fs::copy(&file, PathBuf::from(keep).join(name)).unwrap();
        }
        let mut decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(file).unwrap()));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut bytes).unwrap();
        assert_eq!((frame.width, frame.height), (1_240, 4_200));
        let points = bytes[..frame.buffer_size()].chunks(frame.color_type.samples());
        Self(points.flat_map(|point| point[..3].to_vec()).collect())
    }

    /// Points of this colour (or as near to it) between two heights.
    fn count(&self, hex: &str, near: u8, rows: std::ops::Range<usize>) -> usize {
        let wanted = [0, 2, 4].map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        let points = self.0[rows.start * WIDTH * 3..rows.end * WIDTH * 3].chunks(3);
        points
            .filter(|point| point.iter().zip(wanted).all(|(one, other)| one.abs_diff(other) <= near))
            .count()
    }

    /// The heights at which a colour covers at least so many points of the line.
    fn rows(&self, hex: &str, least: usize) -> Vec<usize> {
        (0..HEIGHT).filter(|row| self.count(hex, 3, *row..row + 1) >= least).collect()
    }
}

/// What must be seen: its colour on the light and the dark page, how near a point must come to it (thin lines
/// are blurred), and how many points at least.
const SEEN: [(&str, &str, &str, u8, usize); 9] = [
    ("the ground", "f7f7f5", "121518", 3, 1_000_000),
    ("cards", "ffffff", "1b1f24", 3, 1_500_000),
    ("words", "1c2024", "e7eaed", 3, 6_000),
    ("the forwarder of the drawing", "c2410c", "ff8a4c", 3, 300),
    ("the clients of the drawing", "2a6fb8", "6caef0", 40, 300),
    ("the first line", "0f35b8", "3d86ff", 3, 1_500),
    ("the second line", "862300", "f59a2a", 3, 800),
    ("bars", "316fa6", "34bcff", 3, 2_000),
    ("shades of the heat map", "1b5496", "a4c8eb", 3, 20_000),
];

#[test]
fn the_page_looks_as_it_should_in_a_browser() {
    let Some(browser) = browser() else {
        eprintln!("SKIPPED: the page is not looked at: no Chromium is installed");
        return;
    };
    let folder = Folder::new("look");
    std::fs::write(folder.0.join("page.html"), run_page(&example::record(1, "maglev", 6))).unwrap();
    for is_dark in [false, true] {
        let picture = Picture::take(&browser, &folder, is_dark);
        for (what, light, dark, near, least) in SEEN {
            let found = picture.count(if is_dark { dark } else { light }, near, 0..HEIGHT);
            assert!(found >= least, "{what}: {found} points, dark: {is_dark}");
        }
        let ground = if is_dark { "f7f7f5" } else { "121518" };
        assert!(
            picture.count(ground, 3, 0..HEIGHT) < 10_000,
            "the ground of the other page, dark: {is_dark}"
        );
        // From top to bottom: the title in the first screen, then the drawing, then the heat map.
        let words = if is_dark { "e7eaed" } else { "1c2024" };
        assert!(picture.count(words, 3, 0..200) > 500, "the title, dark: {is_dark}");
        let forwarder = picture.rows(if is_dark { "ff8a4c" } else { "c2410c" }, 60);
        let heat = picture.rows(if is_dark { "a4c8eb" } else { "1b5496" }, 200);
        assert!(forwarder.len() >= 4 && heat.len() > 60, "{forwarder:?} {heat:?}");
        assert!(forwarder[0] > 300 && forwarder[0] < heat[0], "{forwarder:?} {heat:?}");
    }
}

#[test]
fn the_script_runs_under_the_policy_of_the_page() {
    let Some(browser) = browser() else {
        eprintln!("SKIPPED: the script is not run: no Chromium is installed");
        return;
    };
    let folder = Folder::new("script");
    let page = run_page(&example::busy(1, "maglev", 6, 200));
    std::fs::write(folder.0.join("page.html"), &page).unwrap();
    let document = run(&browser, &folder, &["--dump-dom".to_owned()]);
    let plots = page.matches("<div class=\"plot\">").count();
    assert_eq!(document.matches("class=\"tip\"").count(), plots);
    assert!(document.matches("<button>").count() > 8);
}
