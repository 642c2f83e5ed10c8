Feature: Why a job waits
  What is said to start next is what a fetch hands out, and every job that waits says what for.

  Background:
    Given a running server

  Scenario: What starts next, and what is held
    Given the limit "api" is {"concurrency":1}
    And the job "first" in "mail" with the options {"limits":["api"]}
    And the group "red" of "mail" has the settings {"paused":true}
    When a worker fetches from "mail"
    Given the job "second" in "mail" with the options {"limits":["api"]}
    And the job "red" in "mail" with the options {"group":"red"}
    And the job "plain" in "mail" with the options {}
    And the job "blue" in "mail" with the options {"group":"blue"}
    And the job "urgent" in "mail" with the options {"priority":"critical"}
    And the job "blue-2" in "mail" with the options {"group":"blue"}
    Then "mail" holds back "red, second"
    And "mail" says that "blue, urgent, blue-2, plain" start next, and a fetch brings them

  Scenario: The same on the command line
    Given the limit "api" is {"concurrency":1}
    And the job "first" in "mail" with the options {"limits":["api"]}
    When a worker fetches from "mail"
    Given the job "second" in "mail" with the options {"limits":["api"]}
    And the job "plain" in "mail" with the options {}
    When I run "millpond explain mail --next 2"
    Then the command succeeds
    And it prints "1. plain  starts when a worker asks"
    And it prints "second  held: limit api has 1 of 1 slots taken; it starts when one is free"
    When I run "millpond explain mail second"
    Then it prints "blocked: limit api has 1 of 1 slots taken"

  Scenario: What the jobs before it leave no room for
    Given the limit "api" is {"concurrency":1}
    And the job "first" in "mail" with the options {"limits":["api"]}
    And the job "second" in "mail" with the options {"limits":["api"]}
    When I run "millpond explain mail"
    Then it prints "1. first  starts when a worker asks"
    And it prints "second  held: the jobs before it take all that limit api has left"

  Scenario Outline: A job says what it waits for: <what>
    Given the job "ahead" in "mail" with the options {}
    And the job "it" in "mail" with the options <options>
    Then the explanation of "it" in "mail" says "<says>"

    Examples:
      | what                  | options                 | says                                    |
      | the jobs before it    | {}                      | 1 of 2 waiting jobs start before it     |
      | nothing but a worker  | {"priority":"critical"} | the first worker that asks gets it      |
      | its time              | {"delay_ms":3600000}    | it is not to start before               |

  Scenario: A job says what holds it: its queue
    Given the job "a" in "mail" with the options {}
    When I pause "mail"
    Then the explanation of "a" in "mail" says "queue mail is paused"

  Scenario: A job that runs says where
    Given the job "a" in "mail" was fetched by a worker
    Then the explanation of "a" in "mail" says "worker tester runs attempt 1 of"
