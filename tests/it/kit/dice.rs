//! Randomness that can be repeated: the seed is printed, and a variable sets it.

/// A splitmix64 generator. Fit for tests only.
pub struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    /// Seeded by `BULKHEAD_TEST_SEED`, else anew; the seed is printed.
    pub fn thrown(test: &str) -> Self {
        Self::thrown_by(test, "BULKHEAD_TEST_SEED")
    }
    /// Seeded by a variable of its own, else anew; the seed is printed.
    pub fn thrown_by(test: &str, variable: &str) -> Self {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
        let seed = number_from(variable, u64::from_be_bytes(bytes));
        println!("{test}: {variable}={seed}");
        Self { seed, state: seed }
    }
    /// What it was seeded with.
    pub fn seed(&self) -> u64 {
        self.seed
    }
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    /// A text that does not compress to much less than half.
    pub fn text(&mut self, bytes: usize) -> String {
        (0..bytes.div_ceil(16)).map(|_| format!("{:016x}", self.next())).collect()
    }
}

/// A number that whoever runs the tests may set.
#[expect(clippy::disallowed_methods, reason = "how long a test runs is no configuration of a node")]
pub fn number_from(variable: &str, usual: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
        Err(_) => usual,
    }
}
