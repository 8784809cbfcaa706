//! netns-lab.
