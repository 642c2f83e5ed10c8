Feature: What starts first
  The more urgent job starts first; among equals the one that came first. A job may also wait for its time.

  Background:
    Given a running server

  Scenario: Urgent jobs overtake
    Given the job "later" in "mail" with the options {"priority":"low"}
    And the job "first" in "mail" with the options {"priority":"high"}
    And the job "second" in "mail" with the options {"priority":"high"}
    When a worker fetches 3 jobs from "mail"
    Then it gets the jobs "first, second, later" in this order

  Scenario: A delayed job waits for its time
    Given the job "reminder" in "mail" with the options {"delay_ms":3600000}
    Then the job "reminder" in "mail" is delayed
    When a worker fetches from "mail"
    Then it gets nothing

  Scenario: A delayed job starts by itself
    Given the job "reminder" in "mail" with the options {"delay_ms":50}
    Then a worker that waits on "mail" gets the job "reminder" as attempt 1

  Scenario: One live job per unique key
    Given the job "sync-1" in "sync" with the options {"unique":{"key":"customer-9"}}
    When I push the job "sync-2" to "sync" with the options {"unique":{"key":"customer-9"}}
    Then the push says that the job was there already
    When I push the job "sync-3" to "sync" with the options {"unique":{"key":"customer-9","on_conflict":"reject"}}
    Then the call is refused with status 409 and the code "unique_conflict"

  Scenario: A paused queue hands out nothing
    Given the job "a" in "mail" with the options {}
    When I pause "mail"
    Then the job "a" in "mail" is blocked
    And a worker that fetches from "mail" gets nothing
    When I resume "mail"
    And a worker fetches from "mail"
    Then it gets the job "a" as attempt 1
