Feature: Jobs wait for jobs
  A join has members and a policy. Its continuation starts with their results when it ends, whoever ran them, and whatever broke meanwhile.

  Background:
    Given a running server

  Scenario: A continuation starts with the results of all members
    When I push the graph {"jobs":{"a":{"queue":"q","id":"a","body":1},"b":{"queue":"q","id":"b","body":2},"sum":{"queue":"sums","id":"sum","body":0}},"join":{"policy":"all","then":"sum"}}
    Then the job "sum" in "sums" is waiting-children
    When a worker fetches from "q"
    And the worker reports that it is done with the result 3
    And the server is killed and started again
    And a worker fetches from "q"
    And the worker reports that it is done with the result 4
    And a worker fetches from "sums"
    Then it gets the job "sum" as attempt 1
    And its children are "a completed 3, b completed 4"

  Scenario: With "any" the first success wins and the loser is fenced
    When I push the graph {"jobs":{"a":{"queue":"q","id":"a","body":1},"b":{"queue":"q","id":"b","body":2},"sum":{"queue":"sums","id":"sum","body":0}},"join":{"policy":"any","then":"sum"}}
    And a worker fetches 2 jobs from "q"
    And the worker reports that it is done with the result 3
    Then the job "b" in "q" is cancelled
    And the report of "b" is refused with the code "cancelled"
    When a worker fetches from "sums"
    Then its children are "a completed 3, b cancelled null"

  Scenario: A job waits for its children without a worker
    Given the job "parent" in "q" was fetched by a worker
    When the worker waits for the children {"jobs":{"a":{"queue":"parts","id":"a","body":1}}}
    Then the job "parent" in "q" is waiting-children
    And the explanation of "parent" in "q" says "1 of 1 members of join"
    When a worker fetches from "parts"
    And the worker reports that it is done with the result "made"
    And a worker fetches from "q"
    Then it gets the job "parent" as attempt 1
    And its children are "a completed "made""

  Scenario: A join that is called off takes everything along
    When I push the graph {"jobs":{"a":{"queue":"q","id":"a","body":1},"sum":{"queue":"sums","id":"sum","body":0}},"join":{"then":"sum"}}
    And I cancel the join
    Then the job "a" in "q" is cancelled
    And the job "sum" in "sums" is cancelled

  Scenario: A circle is refused by name
    When I push the graph {"jobs":{"a":{"queue":"q","body":1}},"joins":{"j":{"members":["k"]},"k":{"members":["j"]}}}
    Then the call is refused with status 422 and the code "bad_graph"
