Feature: A job that cannot be done is kept, and can be tried again
  After its last attempt a job is dead. It keeps its body, its error and its history until somebody decides.

  Background:
    Given a running server

  Scenario: The last attempt makes a job dead
    Given the job "pay-1" in "payments" with the options {"attempts":1}
    When a worker fetches from "payments"
    And the worker reports the error "card declined"
    Then the job "pay-1" in "payments" is dead
    And its error is "card declined"

  Scenario: A handler may know that trying again is useless
    Given the job "pay-1" in "payments" was fetched by a worker
    When the worker fails it for good with the error "no such account"
    Then the job "pay-1" in "payments" is dead

  Scenario: A dead job is given another life
    Given the dead job "pay-1" in "payments"
    When I redrive the job "pay-1" in "payments"
    Then the job "pay-1" in "payments" is waiting
    When a worker fetches from "payments"
    Then it gets the job "pay-1" as attempt 1

  Scenario: All dead jobs of a queue at once
    Given the dead job "pay-1" in "payments"
    And the dead job "pay-2" in "payments"
    When I redrive everything dead in "payments"
    Then before long "payments" has 2 waiting jobs

  Scenario: The command line shows what is dead
    Given the dead job "pay-1" in "payments"
    When I run "millpond dead payments"
    Then the command succeeds
    And it prints "pay-1"

  Scenario: What kills jobs is counted by class, whatever numbers the messages have
    Given the job "pay-1" in "payments" was fetched by a worker
    When the worker fails it for good with the error "no account 4711"
    Given the job "pay-2" in "payments" was fetched by a worker
    When the worker fails it for good with the error "no account 4712"
    And I run "millpond dead payments classes"
    Then the command succeeds
    And it prints "2  test: no account #"

  Scenario: Dead jobs go on to another queue
    When I run "millpond dead payments policy --to payments.dead --alert-count 5"
    Then the command succeeds
    Given the job "pay-1" in "payments" was fetched by a worker
    When the worker fails it for good with the error "no such account"
    Then the job "pay-1" in "payments.dead" is waiting
    When a worker fetches from "payments.dead"
    Then it gets the job "pay-1" as attempt 1
    When I run "millpond dead payments policy"
    Then the command succeeds
    And it prints "dead jobs go on to payments.dead"

  Scenario: Dead letters that would go round in a circle are refused
    When I run "millpond dead payments policy --to payments.dead"
    Then the command succeeds
    When I run "millpond dead payments.dead policy --to payments"
    Then the command fails with exit code 1
    And it prints "they would come back"

  Scenario: Many dead jobs are an alert
    When I run "millpond dead payments policy --alert-count 2"
    Then the command succeeds
    Given the dead job "pay-1" in "payments"
    And the dead job "pay-2" in "payments"
    When I run "millpond dead payments policy"
    Then the command succeeds
    And it prints "ALERT since"

  Scenario: A body is mended before the job is redriven
    When I push the job "pay-1" to "payments" with the body {"to":"an","amount":10}
    And a worker fetches from "payments"
    And the worker fails it for good with the error "no such account"
    And I run "millpond dead payments patch pay-1 '{\"to\":\"ann\"}'"
    Then the command succeeds
    When I redrive the job "pay-1" in "payments"
    And a worker fetches from "payments"
    Then it gets the job "pay-1" as attempt 1 with the body {"to":"ann","amount":10}
