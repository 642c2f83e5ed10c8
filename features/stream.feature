Feature: A program far away works as if it were here
  A connected pond does what an opened one does. What happens to the server on the way costs time, never a job.

  Background:
    Given a running server
    And a program that is connected and works on "mail"

  Scenario: Jobs come to it and outcomes go back
    When the program pushes 300 jobs to "mail"
    Then every job of the program has run
    And none of them ran twice
    And "mail" has 300 completed jobs in the end

  Scenario: The server is killed while it works
    When the program begins to push 600 jobs, each with a key, to "mail"
    And the server is killed in the middle and started again at its address
    Then every job of the program has run
    And "mail" was given 600 jobs, none of them twice

  Scenario: The server is replaced in order
    When the program begins to push 600 jobs, each with a key, to "mail"
    And the server is stopped in the middle and started again at its address
    Then every job of the program has run
    And none of them ran twice
    And "mail" was given 600 jobs, none of them twice
