//! The Merkle tree of RFC 6962 §2.1: hashes, the growing edge, proofs.
//!
//! Leaf = SHA-256(0x00 ‖ entry), node = SHA-256(0x01 ‖ left ‖ right), the empty tree SHA-256("").
//! [`Frontier`] grows a tree of any size while it keeps one hash per set bit of the size; the proof
//! functions take all leaf hashes, because whoever asks for a proof has read the log anyway.
//!
//! It refuses to know what the leaves mean.

use aws_lc_rs::digest;
use storage::record::Hash;

/// The hash of a leaf's bytes.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

/// The hash over two subtrees.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The right edge of a tree: the roots of its perfect subtrees, the largest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// Reads what [`to_bytes`](Self::to_bytes) wrote for a tree of `size` leaves.
    pub fn from_bytes(size: u64, bytes: &[u8]) -> Option<Self> {
        let (chunks, rest) = bytes.as_chunks::<32>();
        let is_whole = rest.is_empty() && chunks.len() == size.count_ones() as usize;
        is_whole.then(|| Self { size, roots: chunks.to_vec() })
    }
    /// The roots, one after the other.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.roots.concat()
    }
    /// Leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Adds a leaf on the right.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each trailing one bit of the size is a perfect subtree that the new leaf completes.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.roots.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.roots.push(hash);
        self.size += 1;
    }
    /// The root of the whole tree.
    pub fn root(&self) -> Hash {
        let mut roots = self.roots.iter().rev();
        let Some(last) = roots.next() else { return sha256(&[]) };
        roots.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The root of the tree over these leaf hashes.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// The largest power of two below `size`, which is at least 2.
fn split(size: usize) -> usize {
    1 << (size - 1).ilog2()
}

/// The audit path of one leaf (RFC 6962 §2.1.1), from the leaf up.
pub fn inclusion_proof(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    (index < leaves.len()).then(|| {
        let mut path = Vec::new();
        include(leaves, index, &mut path);
        path
    })
}

fn include(leaves: &[Hash], index: usize, path: &mut Vec<Hash>) {
    if leaves.len() < 2 {
        return;
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    if index < left.len() {
        include(left, index, path);
        path.push(root(right));
    } else {
        include(right, index - left.len(), path);
        path.push(root(left));
    }
}

/// Whether `proof` shows that the leaf is number `index` of the tree with `size` leaves and `root`
/// (RFC 9162 §2.1.3.2, which holds for the same trees).
pub fn verify_inclusion(leaf: Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for step in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(step, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// The proof that the tree over the first `old` leaves is the beginning of the whole
/// (RFC 6962 §2.1.2). Empty if one of the two is empty or both are the same.
pub fn consistency_proof(leaves: &[Hash], old: usize) -> Option<Vec<Hash>> {
    (old <= leaves.len()).then(|| {
        let mut path = Vec::new();
        if old != 0 && old != leaves.len() {
            agree(leaves, old, true, &mut path);
        }
        path
    })
}

fn agree(leaves: &[Hash], old: usize, is_whole: bool, path: &mut Vec<Hash>) {
    if old == leaves.len() {
        if !is_whole {
            path.push(root(leaves));
        }
        return;
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    if old <= left.len() {
        agree(left, old, is_whole, path);
        path.push(root(right));
    } else {
        agree(right, old - left.len(), false, path);
        path.push(root(left));
    }
}

/// Whether `proof` shows that the tree `(new, new_root)` begins with the tree `(old, old_root)`
/// (RFC 9162 §2.1.4.2).
pub fn verify_consistency(
    (old, old_root): (u64, &Hash),
    (new, new_root): (u64, &Hash),
    proof: &[Hash],
) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == sha256(&[]);
    }
    let (first, rest) = if old.is_power_of_two() {
        (old_root, proof)
    } else {
        match proof.split_first() {
            Some(parts) => parts,
            None => return false,
        }
    };
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut from_old, mut from_new) = (*first, *first);
    for step in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            from_old = node_hash(step, &from_old);
            from_new = node_hash(step, &from_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            from_new = node_hash(&from_new, step);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && from_old == *old_root && from_new == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The leaves and roots that the certificate transparency code bases test with.
    const VECTORS: [(&str, &str); 8] = [
        ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        ("00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        ("10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        ("2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
        ("3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
        ("40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
        ("5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        (
            "606162636465666768696a6b6c6d6e6f",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ),
    ];

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    #[test]
    fn the_empty_tree_has_the_hash_of_nothing() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex::encode(Frontier::default().root()), empty);
        assert_eq!(hex::encode(root(&[])), empty);
    }

    #[test]
    fn roots_are_those_of_the_published_vectors() {
        let (mut frontier, mut all) = (Frontier::default(), Vec::new());
        for (entry, expected) in VECTORS {
            let leaf = leaf_hash(&hex::decode(entry).unwrap());
            frontier.push(leaf);
            all.push(leaf);
            assert_eq!(hex::encode(frontier.root()), expected);
            assert_eq!(frontier.root(), root(&all));
        }
    }

    #[test]
    fn a_frontier_goes_on_after_it_was_stored() {
        let all = leaves(64);
        for size in 0..64 {
            let mut frontier = Frontier::default();
            all[..size].iter().for_each(|leaf| frontier.push(*leaf));
            let mut again = Frontier::from_bytes(size as u64, &frontier.to_bytes()).unwrap();
            all[size..].iter().for_each(|leaf| again.push(*leaf));
            assert_eq!(again.root(), root(&all));
            assert_eq!(Frontier::from_bytes(size as u64 + 1, &again.to_bytes()[..0]), None);
        }
    }

    #[test]
    fn every_inclusion_proof_holds_and_none_holds_for_another_leaf_place_or_root() {
        for size in 1..=64_usize {
            let all = leaves(size as u64);
            let root = root(&all);
            for index in 0..size {
                let proof = inclusion_proof(&all, index).unwrap();
                let holds = |leaf, index: usize, proof: &[Hash], root| {
                    verify_inclusion(leaf, index as u64, size as u64, proof, root)
                };
                assert!(holds(all[index], index, &proof, &root), "{index} of {size}");
                assert!(!holds(leaf_hash(b"other"), index, &proof, &root));
                assert!(!holds(all[index], index + 1, &proof, &root));
                assert!(!holds(all[index], index, &proof, &[0; 32]));
                if let Some((_, shorter)) = proof.split_last() {
                    assert!(!holds(all[index], index, shorter, &root));
                }
                assert!(!holds(all[index], index, &[&proof[..], &[root]].concat(), &root));
            }
            assert_eq!(inclusion_proof(&all, size), None);
        }
    }

    #[test]
    fn every_consistency_proof_holds_and_a_changed_one_does_not() {
        let all = leaves(64);
        for new in 0..=64 {
            let new_root = root(&all[..new]);
            for old in 0..=new {
                let old_root = root(&all[..old]);
                let proof = consistency_proof(&all[..new], old).unwrap();
                let holds = |proof: &[Hash], old_root, new_root| {
                    verify_consistency((old as u64, old_root), (new as u64, new_root), proof)
                };
                assert!(holds(&proof, &old_root, &new_root), "{old} in {new}");
                if old != 0 {
                    assert!(!holds(&proof, &[0; 32], &new_root));
                    assert!(!holds(&proof, &old_root, &[0; 32]));
                }
                for at in 0..proof.len() {
                    let mut changed = proof.clone();
                    changed[at][0] ^= 1;
                    assert!(!holds(&changed, &old_root, &new_root), "{old} in {new}, step {at}");
                }
            }
        }
    }
}
