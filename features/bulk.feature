Feature: Many jobs are changed by one call
  An operation over all jobs that match a filter runs in the background. It can be tried dry, looked at, and stopped.

  Background:
    Given a running server

  Scenario: A dry run says what would be changed and changes nothing
    Given the job "a" in "mail" with the options {"tags":["old"]}
    And the job "b" in "mail" with the options {"tags":["new"]}
    When I run "millpond bulk mail purge --tag old --dry-run"
    Then the command succeeds
    And it prints "purge would change 1 jobs"
    And "mail" has 2 waiting jobs

  Scenario: Only jobs that match are purged
    Given the job "a" in "mail" with the options {"tags":["old"]}
    And the job "b" in "mail" with the options {"tags":["new"]}
    When I run "millpond bulk mail purge --tag old --wait"
    Then the command succeeds
    And it prints "1 changed"
    And there is no job "a" in "mail"
    And the job "b" in "mail" is waiting

  Scenario: A filter may look into the bodies
    When I push the job "a" to "mail" with the body {"customer":{"id":42}}
    And I push the job "b" to "mail" with the body {"customer":{"id":7}}
    And I run "millpond bulk mail cancel --where 'body.customer.id == 42' --wait"
    Then the command succeeds
    And the job "a" in "mail" is cancelled
    And the job "b" in "mail" is waiting

  Scenario: Running jobs are cancelled, too, and their results refused
    Given the job "a" in "mail" was fetched by a worker
    When I run "millpond bulk mail cancel --reason recalled --wait"
    Then the command succeeds
    And the job "a" in "mail" is cancelled
    When the first worker reports that it is done
    Then that report is refused with the code "cancelled"

  Scenario: Jobs move to another queue
    Given the job "a" in "mail" with the options {"delay_ms":3600000}
    And the job "b" in "mail" with the options {}
    When I run "millpond bulk mail move --to post --wait"
    Then the command succeeds
    And the job "a" in "post" is delayed
    And the job "b" in "post" is waiting
    And there is no job "a" in "mail"

  Scenario: An operation that has ended is remembered, also over a restart
    Given the dead job "pay-1" in "payments"
    When I run "millpond bulk payments redrive --rate 50 --wait"
    And the server is killed and started again
    And I run "millpond operations"
    Then the command succeeds
    And it prints "redrive payments finished: 1 changed"
