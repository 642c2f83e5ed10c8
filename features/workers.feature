Feature: Workers are seen, rested and ended
  Whoever runs a pond knows which workers are there, and need not look for the machine that they run on.

  Scenario: A worker that rests finishes what it has
    Given a running server
    And a program that is connected as "mailer-1" and works slowly on "mail"
    When I push the job "a" to "mail" with the body 1
    Then "mailer-1" has the job "a" in hand
    When I run "millpond worker quiet mailer-1"
    And I push the job "b" to "mail" with the body 2
    And the slow program may finish a job
    Then before long "mail" has 1 completed jobs
    And the job "b" in "mail" is waiting
    When I run "millpond worker resume mailer-1"
    Then "mailer-1" has the job "b" in hand

  Scenario: A worker that is told to stop ends
    Given a running server
    And a program that is connected as "mailer-1" and works slowly on "mail"
    When I push the job "a" to "mail" with the body 1
    Then "mailer-1" has the job "a" in hand
    When I run "millpond worker stop mailer-1"
    And the slow program may finish a job
    Then the slow program ends
    And the job "a" in "mail" is completed

  Scenario: A worker that was written for Faktory
    Given a running server that speaks the protocol of Faktory
    And a Faktory client that works as "w-1"
    When I run "millpond worker quiet faktory:w-1"
    Then the Faktory client hears "quiet" in the beat of "w-1"
    When I run "millpond worker stop faktory:w-1"
    Then the Faktory client hears "terminate" in the beat of "w-1"
    When I run "millpond workers"
    Then it prints "faktory:w-1"
