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
    And the explanation of "pay-1" in "payments" says "it died in queue payments after attempt 1 (no such account) and is in queue payments.dead now"
    When I run "millpond explain payments"
    Then it prints "Jobs that die go on to queue payments.dead."
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
    When I run "millpond explain payments"
    Then it prints "Alert: too many jobs died"
    And it prints "2 jobs are dead here"
    And the explanation of "pay-2" in "payments" says "queue payments has an alert since"

  Scenario: A body is mended before the job is redriven
    When I push the job "pay-1" to "payments" with the body {"to":"an","amount":10}
    And a worker fetches from "payments"
    And the worker fails it for good with the error "no such account"
    And I run "millpond dead payments patch pay-1 '{\"to\":\"ann\"}'"
    Then the command succeeds
    When I redrive the job "pay-1" in "payments"
    And a worker fetches from "payments"
    Then it gets the job "pay-1" as attempt 1 with the body {"to":"ann","amount":10}

  Scenario: A job that kills its handler goes into quarantine
    Given a program that takes jobs from "photos":
      """
      if [ -e mended ]; then exit 0; fi
      echo "bad strip size" >&2; kill -SEGV $$
      """
    And the job "photo-17" in "photos" with the options {"attempts":1,"backoff":{"type":"fixed","delay_ms":10}}
    Then the job "photo-17" in "photos" becomes dead
    And the history of "photo-17" in "photos" has "crash" 2 times
    And the history of "photo-17" in "photos" has "quarantine" 1 time
    And its explanation says "it is in quarantine: whoever ran it crashed 3 times, the last time: killed by SIGSEGV"
    When I run "millpond job photo-17 photos"
    Then it prints "crashed 3 times"
    And it prints "crash: killed by SIGSEGV"
    And it prints "bad strip size"
    When I run "millpond dead photos --error-kind crash"
    Then it prints "killed by SIGSEGV"
    When the file "mended" is there
    And I redrive the job "photo-17" in "photos"
    Then the job "photo-17" in "photos" becomes completed
    When I ask for the job "photo-17" in "photos"
    Then it has crashed 0 times

  Scenario: A crash is counted through a restart of the server
    Given the job "photo-17" in "photos" with the options {"max_crashes":2,"backoff":{"type":"fixed","delay_ms":0}}
    When a worker fetches from "photos"
    And the worker reports that its process was killed by "SIGABRT"
    And the server is killed and started again
    And a worker fetches from "photos"
    And the worker reports that its process was killed by "SIGKILL"
    Then the job "photo-17" in "photos" is dead
    And its error is "killed by SIGKILL"
