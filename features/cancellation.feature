Feature: A job can be called off, also while it runs
  Its handler hears of it at once, not when it happens to ask. What a cancelled attempt reports is refused.

  Background:
    Given a running server

  Scenario: A job that waits is called off
    Given the job "mail-1" in "mail" with the options {}
    When I cancel the job "mail-1" in "mail"
    Then the job "mail-1" in "mail" is cancelled
    When a worker fetches from "mail"
    Then it gets nothing

  Scenario: The result of a cancelled attempt is refused
    Given the job "mail-1" in "mail" was fetched by a worker
    When I cancel the job "mail-1" in "mail"
    And the first worker reports that it is done
    Then that report is refused with the code "cancelled"
    And the job "mail-1" in "mail" is cancelled

  Scenario: A worker asks what was taken from it
    Given the job "mail-1" in "mail" was fetched by a worker
    When the worker begins to listen for what it loses
    And I cancel the job "mail-1" in "mail"
    Then the worker hears that it lost "mail-1" because of "cancelled"

  Scenario: A lease that ends is heard of as well
    Given the job "mail-1" in "mail" was fetched by a worker with a lease of 300 ms
    When the worker begins to listen for what it loses
    Then the worker hears that it lost "mail-1" because of "lease_lost"

  Scenario Outline: A running program is told to stop: <program>
    Given a <program> that takes jobs from "films" and works until it is told to stop
    And the job "film-1" in "films" with the options {}
    When the program has begun
    And I cancel the job "film-1" in "films"
    Then the program was told to stop
    And the job "film-1" in "films" is cancelled

    Examples:
      | program        |
      | shell program  |
      | Python handler |
      | Node handler   |
