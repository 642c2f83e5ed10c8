Feature: Nothing acknowledged is lost
  An answer says that the change is on the disk. Whatever happens to the server afterwards, it is there when the server is back.

  Background:
    Given a running server

  Scenario: The server is killed
    Given 100 jobs in "mail"
    And the job "order-1" in "orders" was fetched by a worker
    And the dead job "pay-1" in "payments"
    When the server is killed and started again
    Then "mail" has 100 waiting jobs
    And the job "order-1" in "orders" is active
    And the job "pay-1" in "payments" is dead
    When the worker reports that it is done
    Then the job "order-1" in "orders" is completed

  Scenario: The server is stopped in order
    Given 100 jobs in "mail"
    When the server is stopped
    Then it ends with exit code 0
    When the server is started again
    Then "mail" has 100 waiting jobs

  Scenario: Tokens rise over a restart
    Given the job "order-1" in "orders" was fetched by a worker with a lease of 200 ms
    When the server is killed and started again
    Then a worker that waits on "orders" gets the job "order-1" as attempt 2
    And its lease token is larger than the first one

  Scenario: Two servers never share a directory
    When a second server is started on the same directory
    Then it is refused with exit code 3 and says "in use"
    And "mail" can still take a job
