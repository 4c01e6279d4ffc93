use std::str::FromStr;

use flott_schema::job::ProgramDigest;

use super::*;

/// SHA-256 of `hello`, from another implementation.
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn open(directory: &std::path::Path) -> Programs {
    Programs::open(directory, 1_000, ProgramPeers::none()).unwrap()
}

fn files(directory: &std::path::Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[tokio::test]
async fn a_program_is_stored_under_its_hash_and_read_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let programs = open(directory.path());
    let digest = ProgramDigest::from_str(HELLO).unwrap();
    assert!(!programs.contains(digest));
    let mut upload = programs.upload().unwrap();
    upload.write(b"he").unwrap();
    upload.write(b"llo").unwrap();
    let stored = upload.finish(&programs, Some(digest)).await.unwrap();
    assert_eq!(stored, StoredProgram { digest, size_bytes: 5 });
    assert_eq!(open(directory.path()).list().unwrap(), vec![stored]);
    assert_eq!(programs.read(digest, 0, 3).unwrap(), (b"hel".to_vec(), 5));
    assert_eq!(programs.read(digest, 3, 3).unwrap(), (b"lo".to_vec(), 5));
    assert_eq!(programs.read(digest, 9, 3).unwrap(), (Vec::new(), 5));
    assert_eq!(std::fs::read(programs.path(digest)).unwrap(), b"hello");
    // Alone, it is a majority.
    programs.replicate(digest).await.unwrap();
    assert!(programs.remove(digest).unwrap());
    assert!(!programs.remove(digest).unwrap());
    assert!(matches!(programs.read(digest, 0, 3), Err(ProgramError::Unknown(_))));
    assert!(matches!(programs.fetch(digest).await, Err(ProgramError::Unknown(_))));
}

#[tokio::test]
async fn what_is_too_large_broken_off_or_something_else_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let programs = open(directory.path());
    let mut upload = programs.upload().unwrap();
    upload.write(&[0; 1_000]).unwrap();
    assert!(matches!(upload.write(&[0]), Err(ProgramError::TooLarge { max_bytes: 1_000 })));
    drop(upload);
    let mut upload = programs.upload().unwrap();
    upload.write(b"hallo").unwrap();
    let digest = ProgramDigest::from_str(HELLO).unwrap();
    let error = upload.finish(&programs, Some(digest)).await.unwrap_err();
    assert!(matches!(error, ProgramError::WrongDigest { .. }), "{error}");
    assert_eq!(files(directory.path()), 0);
    // A process that was killed leaves a part, which the next one removes.
    std::fs::write(directory.path().join("3.part"), b"he").unwrap();
    std::mem::forget(programs.upload().unwrap());
    let programs = open(directory.path());
    assert_eq!((files(directory.path()), programs.list().unwrap().len()), (0, 0));
}

#[test]
fn parts_of_another_member_become_a_program_only_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let programs = open(directory.path());
    let digest = ProgramDigest::from_str(HELLO).unwrap();
    assert!(!programs.take_part(1, digest, 0, b"he", false).unwrap());
    let error = programs.take_part(1, digest, 3, b"lo", true).unwrap_err();
    assert!(matches!(error, ProgramError::OutOfOrder { offset: 3, expected: 2, .. }), "{error}");
    // It starts again; meanwhile another member sends the same.
    assert!(!programs.take_part(1, digest, 0, b"he", false).unwrap());
    assert!(!programs.take_part(2, digest, 0, b"h", false).unwrap());
    assert!(programs.take_part(1, digest, 2, b"llo", true).unwrap());
    assert!(programs.take_part(2, digest, 1, b"e", false).unwrap(), "it is there already");
    for other in 0..20 {
        assert!(!programs.take_part(other, ProgramDigest([7; 32]), 0, b"x", false).unwrap());
    }
    assert!(files(directory.path()) <= 1 + 9 + 1, "unfinished programs are bounded");
}

#[test]
fn senders_of_the_same_program_do_not_mix_and_the_one_of_which_nothing_came_gives_way() {
    let directory = tempfile::tempdir().unwrap();
    let programs = open(directory.path());
    let digest = ProgramDigest::from_str(HELLO).unwrap();
    let (first, second) = (programs.new_sender(1), programs.new_sender(1));
    assert_ne!(first, second);
    assert!(!programs.take_part(first, digest, 0, b"he", false).unwrap());
    assert!(!programs.take_part(second, digest, 0, b"hel", false).unwrap());
    assert!(!programs.take_part(first, digest, 2, b"ll", false).unwrap());
    for other in 0..7 {
        assert!(!programs.take_part(other, digest, 0, b"he", false).unwrap());
    }
    // Room is for eight: the second one had to go.
    assert!(matches!(
        programs.take_part(second, digest, 3, b"lo", true),
        Err(ProgramError::OutOfOrder { offset: 3, expected: 0, .. })
    ));
    assert!(programs.take_part(first, digest, 4, b"o", true).unwrap());
    assert_eq!(std::fs::read(programs.path(digest)).unwrap(), b"hello");
}
