//! A worker that is registered.

use flott_schema::control::TaskState;
use flott_schema::job::{ProgramDigest, ProgramRef};
use flott_schema::security::{CONTROL_PROTOCOL, Token};
use flott_schema::wire::Wire;
use flott_schema::wire::generated::control_capnp::program_result;

use super::coordinator::{Answer, Event, Port};
use super::*;
use crate::session::{SessionEnd, SessionState};

#[test]
fn it_introduces_itself_and_learns_its_id() {
    run(async {
        let mut port = Port::open().await;
        let mut options = options(&[&port.name()]);
        options.token = Token::new("correct-horse").unwrap();
        let profile = options.profile.clone();
        let (handle, _orders) = session(options);
        assert_eq!(handle.worker(), None);
        let applicant = port.applicant().await;
        assert_eq!((applicant.protocol, applicant.token.as_str()), (CONTROL_PROTOCOL, "correct-horse"));
        assert_eq!((&applicant.profile, applicant.previous), (&profile, 0));
        assert_eq!(applicant.tasks, []);
        let _registered = applicant.answer(Answer::accepted(9, 4));
        assert_eq!(soon("the id", handle.registered()).await, Ok(WorkerId(9)));
        let state = SessionState::Registered { worker: WorkerId(9), term: 4, leader: port.name() };
        assert_eq!(*handle.watch().borrow(), state);
    });
}

#[test]
fn orders_come_in_order_and_those_of_an_older_term_are_refused() {
    run(async {
        let mut port = Port::open().await;
        let (_handle, mut orders) = session(options(&[&port.name()]));
        let coordinator = port.register(1, 4).await;
        for job in 0..100 {
            coordinator.order(&release(4, job)).await.unwrap();
        }
        coordinator.order(&release(6, 100)).await.unwrap();
        let error = coordinator.order(&release(5, 999)).await.unwrap_err();
        assert!(error.to_string().contains("term 6 has begun"), "{error}");
        coordinator.order(&release(6, 101)).await.unwrap();
        for job in 0..=101 {
            let term = if job < 100 { 4 } else { 6 };
            assert_eq!(soon("an order", orders.recv()).await, Some(release(term, job)));
        }
    });
}

#[test]
fn an_order_is_answered_when_the_worker_has_room_for_it() {
    run(async {
        let mut port = Port::open().await;
        let (_handle, mut orders) = session(Options { orders_capacity: 1, ..options(&[&port.name()]) });
        let coordinator = port.register(1, 1).await;
        coordinator.order(&release(1, 1)).await.unwrap();
        let second_order = release(1, 2);
        let second = coordinator.order(&second_order);
        tokio::pin!(second);
        tokio::select! {
            biased;
            _ = &mut second => panic!("there is no room yet"),
            order = orders.recv() => assert_eq!(order, Some(release(1, 1))),
        }
        second.await.unwrap();
        assert_eq!(orders.recv().await, Some(second_order.clone()));
    });
}

#[test]
fn reports_that_gathered_while_others_were_on_their_way_go_out_together() {
    run(async {
        let mut port = Port::open().await;
        let (handle, _orders) = session(options(&[&port.name()]));
        let mut coordinator = port.register(1, 1).await;
        handle.report(vec![report(0, TaskState::Running)]).await.unwrap();
        let (first, acknowledge) = coordinator.reports().await;
        assert_eq!(first, [report(0, TaskState::Running)]);
        for subtask in 1..200 {
            handle.report(vec![report(subtask, TaskState::Running)]).await.unwrap();
        }
        acknowledge.send(()).unwrap();
        let mut received = first;
        let mut calls = 1;
        while received.len() < 200 {
            let (reports, acknowledge) = coordinator.reports().await;
            received.extend(reports);
            calls += 1;
            acknowledge.send(()).unwrap();
        }
        let all: Vec<_> = (0..200).map(|subtask| report(subtask, TaskState::Running)).collect();
        assert_eq!(received, all);
        // The thread of the session may have looked at the queue while it was being filled.
        assert!(calls < 100, "{calls} calls for 200 reports");
    });
}

#[test]
fn heartbeats_come_at_the_interval_that_the_leader_named() {
    run(async {
        let mut port = Port::open().await;
        let (_handle, _orders) = session(options(&[&port.name()]));
        let answer = Answer::Accepted {
            worker: 1,
            term: 1,
            heartbeat_interval_ms: 20,
            heartbeat_timeout_ms: 3_600_000,
        };
        let mut coordinator = port.applicant().await.answer(answer);
        for number in 0..5 {
            let (stats, answer) = coordinator.heartbeat().await;
            assert_eq!(stats.usage.cpu_ms, number);
            answer.send(()).unwrap();
        }
    });
}

#[test]
fn the_last_numbers_of_a_task_come_before_the_word_that_it_has_ended() {
    run(async {
        let mut port = Port::open().await;
        let (handle, _orders) = session(options(&[&port.name()]));
        let mut coordinator = port.register(1, 1).await;
        handle.report(vec![report(0, TaskState::Running), report(1, TaskState::Finished)]).await.unwrap();
        let mut numbers = Vec::new();
        loop {
            match soon("the word", coordinator.events.recv()).await.unwrap() {
                Event::Heartbeat(stats, answer) => {
                    numbers.extend(stats.tasks.iter().map(|task| task.attempt));
                    answer.send(()).unwrap();
                }
                Event::Reports(reports, _) => {
                    assert_eq!(reports.len(), 2);
                    break;
                }
                _ => panic!("nothing else was reported"),
            }
        }
        assert_eq!(numbers, [attempt(1)]);
    });
}

#[test]
fn it_answers_questions_about_logs_and_runs_programs() {
    run(async {
        let mut port = Port::open().await;
        let (_handle, _orders) = session(options(&[&port.name()]));
        let coordinator = port.register(1, 1).await;
        let client = &coordinator.client;

        let answer = client.list_logs_request().send().promise.await.unwrap();
        assert_eq!(answer.get().unwrap().get_files().unwrap().get(0).get_size(), 9);
        let read = |name: &str, offset| {
            let mut request = client.read_log_request();
            let mut form = request.get();
            form.set_name(name);
            form.set_offset(offset);
            form.set_length(100);
            request.send().promise
        };
        let answer = read("worker.log", 5).await.unwrap();
        assert_eq!(answer.get().unwrap().get_part().unwrap(), b"byte");
        let error = read("../secret", 0).await.err().unwrap();
        assert!(error.to_string().contains("there is no log file '../secret'"), "{error}");

        let run_program = |name: &str, plan_only| {
            let program = ProgramRef {
                digest: ProgramDigest([0; 32]),
                name: name.into(),
                arguments: Vec::new(),
                execution: 0,
                configuration: Vec::new(),
            };
            let mut request = client.run_program_request();
            let mut form = request.get();
            program.write(form.reborrow().init_program()).unwrap();
            form.set_rest_address("h:1");
            form.set_plan_only(plan_only);
            request.send().promise
        };
        for (name, plan_only, expected) in [("good", true, "h:1"), ("broken", false, "the program fell over")]
        {
            let answer = run_program(name, plan_only).await.unwrap();
            match answer.get().unwrap().get_result().unwrap().which().unwrap() {
                program_result::Plan(text) | program_result::Failed(text) => {
                    assert_eq!(text.unwrap(), expected)
                }
                program_result::Submitted(_) => panic!("submitted"),
            }
        }
        let answer = run_program("good", false).await.unwrap();
        match answer.get().unwrap().get_result().unwrap().which().unwrap() {
            program_result::Submitted(jobs) => assert_eq!(jobs.unwrap().len(), 2),
            program_result::Plan(_) | program_result::Failed(_) => panic!("not submitted"),
        }
    });
}

#[test]
fn it_reads_programs_and_says_why_it_cannot() {
    run(async {
        let mut port = Port::open().await;
        let (handle, _orders) = session(Options { attempt_timeout_ms: 200, ..options(&[&port.name()]) });
        let stored = ProgramDigest([0; 32]);
        // Nobody has taken the worker yet.
        let error = handle.read_program(stored, 0, 10).await.unwrap_err();
        assert!(error.to_string().contains("200 ms"), "{error}");
        let applicant = port.applicant().await;
        drop(applicant);
        let _registered = port.register(1, 1).await;
        handle.registered().await.unwrap();
        let part = handle.read_program(stored, 0, 10).await.unwrap();
        assert_eq!((part.bytes, part.size), (vec![7; 10], 100));
        let error = handle.read_program(ProgramDigest([1; 32]), 0, 10).await.unwrap_err();
        assert!(error.to_string().ends_with("there is no such program"), "{error}");
    });
}

#[test]
fn it_ends_when_told_and_the_coordinator_notices_at_once() {
    run(async {
        let mut port = Port::open().await;
        let (handle, mut orders) = session(options(&[&port.name()]));
        let coordinator = port.register(1, 1).await;
        handle.registered().await.unwrap();
        handle.stop();
        coordinator.closed().await;
        assert_eq!(soon("the end", handle.ended()).await, SessionEnd::Stopped);
        assert_eq!(orders.recv().await, None);
        assert_eq!(handle.report(vec![report(0, TaskState::Running)]).await, Err(SessionEnd::Stopped));
    });
}

#[test]
fn it_ends_with_its_last_handle_and_when_nobody_reads_its_orders() {
    run(async {
        let mut port = Port::open().await;
        let (handle, orders) = session(options(&[&port.name()]));
        let coordinator = port.register(1, 1).await;
        handle.registered().await.unwrap();
        drop(handle);
        coordinator.closed().await;
        drop(orders);

        let (handle, orders) = session(options(&[&port.name()]));
        let coordinator = port.register(2, 1).await;
        handle.registered().await.unwrap();
        drop(orders);
        coordinator.closed().await;
        assert_eq!(soon("the end", handle.ended()).await, SessionEnd::Deserted);
    });
}
