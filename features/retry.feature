Feature: A failed attempt is tried again
  An attempt that fails is repeated after a while, and the while grows. After the last attempt the job is dead, which is not lost.

  Background:
    Given a running server

  Scenario: A job waits before its next attempt
    Given the job "call-1" in "calls" with the options {"attempts":3,"backoff":{"type":"fixed","delay_ms":3600000}}
    When a worker fetches from "calls"
    And the worker reports the error "timeout"
    Then the job "call-1" in "calls" is retrying
    And its error is "timeout"
    When I promote the job "call-1" in "calls"
    And a worker fetches from "calls"
    Then it gets the job "call-1" as attempt 2

  Scenario: The next attempt comes by itself
    Given the job "call-1" in "calls" with the options {"backoff":{"type":"fixed","delay_ms":50}}
    When a worker fetches from "calls"
    And the worker reports the error "timeout"
    Then a worker that waits on "calls" gets the job "call-1" as attempt 2

  Scenario: Putting a job off uses no attempt
    Given the job "call-1" in "calls" was fetched by a worker
    When the worker snoozes it for 50 ms
    Then a worker that waits on "calls" gets the job "call-1" as attempt 1

  Scenario: A lost worker's job goes to another one
    Given the job "call-1" in "calls" was fetched by a worker with a lease of 200 ms
    Then a worker that waits on "calls" gets the job "call-1" as attempt 2
    When the first worker reports that it is done
    Then that report is refused with the code "stale_lease"
    And the job "call-1" in "calls" is active
